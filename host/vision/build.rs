//! Compiles `src/jpeg.c` against the headers of the libjpeg-turbo that crate `turbojpeg-sys` builds.

fn main() {
    println!("cargo:rerun-if-changed=src/jpeg.c");
    #[cfg(feature = "opencv")]
    {
        let mut build = cc::Build::new();
        let folders = std::env::var("DEP_TURBOJPEG_INCLUDE").unwrap_or_default();
        build.includes(folders.split(',').filter(|folder| !folder.is_empty()));
        build.file("src/jpeg.c").extra_warnings(true).compile("dovetail_jpeg");
    }
}
