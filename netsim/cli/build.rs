//! Puts the randomness of the libraries under the seed in the programs of this crate, so that a seed repeats to
//! the byte (see `weft-netsim-entropy`). Other programs of the workspace are linked as usual.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let args = std::env::var("DEP_WEFT_NETSIM_ENTROPY_LINK_ARGS").unwrap_or_default();
    for arg in args.split_whitespace() {
        println!("cargo::rustc-link-arg-bins={arg}");
    }
}
