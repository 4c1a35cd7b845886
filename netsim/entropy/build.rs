//! Finds the prefix that aws-lc puts before its symbols (it carries the crate's version), and writes the
//! functions that stand in for them under that name.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let prefix = prefix().expect("aws-lc-sys tells its metadata to those who depend on it");
    let names = ["RAND_bytes", "RAND_bytes_with_user_prediction_resistance"];
    let mut code = String::new();
    for (number, name) in names.iter().enumerate() {
        code.push_str(&format!(
            "/// Stands in for `{name}` where the linker is told to wrap it.\n\
             ///\n\
             /// # Safety\n\
             /// `out` must be writable for `len` bytes.\n\
             #[unsafe(export_name = \"__wrap_{prefix}_{name}\")]\n\
             pub unsafe extern \"C\" fn wrap_{number}(out: *mut u8, len: usize{more}) -> i32 {{\n\
             \x20   // SAFETY: the caller's promise.\n\
             \x20   unsafe {{ crate::fill_raw(out, len) }};\n\
             \x20   1\n\
             }}\n",
            more = if number == 0 {
                ""
            } else {
                ", _personal: *const u8"
            },
        ));
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    std::fs::write(out.join("wraps.rs"), code).expect("the output directory is writable");
    let args: Vec<_> = names
        .iter()
        .map(|name| format!("-Wl,--wrap={prefix}_{name}"))
        .collect();
    println!("cargo::metadata=LINK_ARGS={}", args.join(" "));
}

/// `aws_lc_0_47_0` from `DEP_AWS_LC_0_47_0_INCLUDE`.
fn prefix() -> Option<String> {
    std::env::vars().find_map(|(name, _)| {
        let version = name.strip_prefix("DEP_AWS_LC_")?;
        let numbers: Vec<_> = version
            .split('_')
            .take_while(|part| part.bytes().all(|b| b.is_ascii_digit()))
            .collect();
        (numbers.len() == 3).then(|| format!("aws_lc_{}", numbers.join("_")))
    })
}
