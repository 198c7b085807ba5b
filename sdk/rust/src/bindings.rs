//! Bindings of the host's interfaces, generated once by wit-bindgen. A task's own bindings reuse these types, so no
//! conversion is needed. `lib.rs` names the types that authors use.

wit_bindgen::generate!({
    path: ["wit/task", "wit/vision"],
    inline: "package dovetail:sdk@0.1.0; world sdk { include dovetail:task/imports@0.1.0; include \
             dovetail:vision/imports@0.1.0; }",
    world: "sdk",
    runtime_path: "::wit_bindgen::rt",
    additional_derives: [PartialEq],
    generate_all,
});
