//! Tries the targets on valid inputs, on those that a fuzzer found to reach something new or to fail once, and on all of
//! them cut, changed and joined.

use std::fs;
use std::path::Path;

use fsd_fuzz::{TARGETS, Target, seeds};

/// Positions of an input at which it is cut or changed, at most.
const PLACES: usize = 100;

fn stored(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files = fs::read_dir(directory).expect("each target has a corpus");
    let mut paths: Vec<_> = files.map(|entry| entry.expect("the folder can be read").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("the file can be read")).collect()
}

fn each_target(check: impl Fn(Target)) {
    TARGETS.into_iter().for_each(check);
}

#[test]
fn seeds_are_valid() {
    each_target(|(name, run)| {
        for (number, seed) in seeds::of(name).iter().enumerate() {
            assert!(run(seed), "seed {number} of {name} is refused");
        }
    });
}

#[test]
fn what_was_found_does_not_fail_again() {
    each_target(|(name, run)| stored(name).iter().for_each(|input| _ = run(input)));
}

#[test]
fn damaged_inputs_are_refused_or_read() {
    each_target(|(name, run)| {
        let seeds = seeds::of(name);
        for (number, seed) in seeds.iter().enumerate() {
            let other = &seeds[(number + 1) % seeds.len()];
            for at in (0..seed.len()).step_by(seed.len().div_ceil(PLACES)) {
                run(&seed[..at]);
                run(&[&seed[..at], &seed[at + 1..]].concat());
                run(&[&seed[..at], &other[at.min(other.len())..]].concat());
                for byte in [seed[at] ^ 1 << (at % 8), seed[at].wrapping_add(1), 0, 0x7f, 0xff] {
                    let mut changed = seed.clone();
                    changed[at] = byte;
                    run(&changed);
                }
            }
        }
    });
}
