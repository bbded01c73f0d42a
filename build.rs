//! Link options of the Lua module.

fn main() {
    // `lua_close` unloads every library that `require` loaded. Signal handlers and a replaced
    // allocator of ours may still be called afterwards, so the library must stay mapped.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
