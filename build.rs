//! Compiles the wire contracts of `proto/`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tonic_build::configure().compile(
        &[
            "proto/ploop/v1/disks.proto",
            "proto/ploop/v1/node.proto",
            "proto/nri/v1alpha1/nri.proto",
            "proto/ttrpc/ttrpc.proto",
        ],
        &["proto"],
    )?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
