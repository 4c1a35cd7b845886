//! Puts the randomness of the libraries of this crate's tests under the seed (see `weft-netsim-entropy`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let args = std::env::var("DEP_WEFT_NETSIM_ENTROPY_LINK_ARGS").unwrap_or_default();
    for arg in args.split_whitespace() {
        println!("cargo::rustc-link-arg-tests={arg}");
    }
}
