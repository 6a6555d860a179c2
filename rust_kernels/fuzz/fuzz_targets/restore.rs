#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fsd_fuzz::restore::run(data);
});
