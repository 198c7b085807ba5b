//! The host's interfaces, bound once. A task's own bindings reuse these types, so that nothing has to be converted.
//! Everything in here is written by wit-bindgen; what an author sees of it is named in `lib.rs`.

wit_bindgen::generate!({
    path: ["wit/task", "wit/vision"],
    inline: "package dovetail:sdk@0.1.0; world sdk { include dovetail:task/imports@0.1.0; include dovetail:vision/imports@0.1.0; }",
    world: "sdk",
    runtime_path: "::wit_bindgen::rt",
    additional_derives: [PartialEq],
    generate_all,
});
