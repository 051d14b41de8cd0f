//! Says at once what the feature `rocksdb` lacks. The build of RocksDB itself would say that libclang is missing only after
//! it has compiled for minutes.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["LIBCLANG_PATH", "CXX", "CXXFLAGS", "ROCKSDB_CXX_STD", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    #[cfg(feature = "rocksdb")]
    for missing in [missing_libclang(), missing_compiler()].into_iter().flatten() {
        println!("cargo::error=the feature `rocksdb` of cutwater-rocksdb {missing}");
    }
}

/// Bindings are made with libclang, also for an archive that is there (`ROCKSDB_LIB_DIR`).
#[cfg(feature = "rocksdb")]
fn missing_libclang() -> Option<String> {
    let error = clang_sys::load().err()?;
    Some(format!(
        "needs libclang: install it (on Debian `apt-get install clang libclang-dev`), or set LIBCLANG_PATH to the folder that \
         holds it; {}",
        error.replace('\n', " ")
    ))
}

#[cfg(feature = "rocksdb")]
fn missing_compiler() -> Option<String> {
    use std::process::Stdio;

    let advice = "needs a C++20 compiler: install one (on Debian `apt-get install g++`, version 10 or newer), or name one by CXX";
    let tool = match cc::Build::new().cpp(true).cargo_metadata(false).try_get_compiler() {
        Ok(tool) => tool,
        Err(error) => return Some(format!("{advice}; {error}")),
    };
    if tool.is_like_msvc() {
        return None; // says what it lacks early enough
    }
    let mut command = tool.to_command();
    command.args(["-std=c++20", "-fsyntax-only", "-x", "c++", "-include", "compare", "/dev/null"]);
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Some(format!("{advice}; {} says: {}", tool.path().display(), said.lines().next().unwrap_or("nothing")))
        }
        Err(error) => Some(format!("{advice}; {}: {error}", tool.path().display())),
    }
}
