//! Writes the valid inputs of all targets into folders of a directory: `cargo run --example seeds DIRECTORY`.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let directory = PathBuf::from(env::args().nth(1).expect("give the directory to write to"));
    for (target, _) in fsd_fuzz::TARGETS {
        fs::create_dir_all(directory.join(target))?;
        for (number, seed) in fsd_fuzz::seeds::of(target).iter().enumerate() {
            fs::write(directory.join(target).join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
