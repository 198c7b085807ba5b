//! The libraries that the built program links. OpenCV's `imgcodecs` would add 146 libraries, 60 to 90 ms and 51 MB to
//! every start.

use std::process::Command;

use crate::root;

#[test]
fn the_program_links_no_imgcodecs_and_few_libraries() {
    let program = root().join("target/release/dovetail");
    assert!(program.is_file(), "{} is missing; run `cargo build --release -p dovetail`", program.display());
    let out = Command::new("ldd").arg(&program).output().expect("ldd runs");
    assert!(out.status.success(), "ldd: {}", String::from_utf8_lossy(&out.stderr));
    let libraries = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(libraries.contains("libopencv_dnn"), "the program does not link OpenCV:\n{libraries}");
    for unwanted in ["imgcodecs", "highgui", "videoio", "libgdal", "libgtk", "libQt", "libavcodec", "libjpeg"] {
        assert!(!libraries.contains(unwanted), "{unwanted} is linked:\n{libraries}");
    }
    let count = libraries.lines().count();
    assert!(count <= 40, "{count} libraries are linked, there were 28:\n{libraries}");
}
