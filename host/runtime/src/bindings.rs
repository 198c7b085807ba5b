//! The host's own interfaces, bound statically from their WIT. A task's own interface is not bound: the runtime reads
//! it from the component and calls it dynamically.

wasmtime::component::bindgen!({
    path: ["../../wit/task", "../../wit/vision"],
    inline: "package dovetail:host; world services {
        include dovetail:task/imports@0.1.0;
        include dovetail:vision/imports@0.1.0;
    }",
    world: "services",
    // A host function can fail in two ways: with a `task-error` that the guest sees, or with an error that ends the
    // attempt.
    imports: { default: trappable },
    trappable_error_type: { "dovetail:task/types.task-error" => crate::handles::Fault },
    // One Rust type for each resource: with a shared type, an image and an artifact would look the same.
    with: {
        "dovetail:task/artifacts.artifact": crate::handles::Artifact,
        "dovetail:task/artifacts.writer": crate::handles::Writer,
        "dovetail:vision/images.image": crate::handles::Image,
        "dovetail:vision/faces.detector": crate::handles::Detector,
        "dovetail:vision/faces.landmarker": crate::handles::Landmarker,
        "dovetail:vision/faces.age-gender-estimator": crate::handles::AgeGenderEstimator,
        "dovetail:vision/faces.emotion-classifier": crate::handles::EmotionClassifier,
        "dovetail:vision/faces.embedder": crate::handles::Embedder,
    },
});
