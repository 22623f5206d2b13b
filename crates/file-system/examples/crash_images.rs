//! Two ways to replace a file, tried at every event of a simulated run: the one that forgets a sync is found out.
//!
//! ```text
//! cargo run -p file-system --example crash_images
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use file_system::{Crash, FileError, FileSystem, SimulatedFileSystem, replace_file};

const DIR: &str = "/db";
const NAME: &str = "global.json";

type Replace = fn(&dyn FileSystem, &[u8]) -> Result<(), FileError>;

fn with_all_steps(files: &dyn FileSystem, bytes: &[u8]) -> Result<(), FileError> {
    replace_file(files, Path::new(DIR), NAME, bytes).map_err(|error| error.into_file_error())
}

/// Renames before the bytes are durable: looks right on every machine that is not unplugged.
fn without_syncing_the_file(files: &dyn FileSystem, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = files.create_temporary(Path::new(DIR))?;
    file.append(bytes)?;
    file.persist(&Path::new(DIR).join(NAME))?;
    files.sync_dir(Path::new(DIR))
}

fn main() -> Result<(), FileError> {
    let ways: [(&str, Replace); 2] =
        [("with all steps", with_all_steps), ("without syncing the file", without_syncing_the_file)];
    for (title, replace) in ways {
        let files = SimulatedFileSystem::new(42);
        files.create_dir(Path::new(DIR))?;
        files.sync_dir(Path::new("/"))?;
        let (old, new) = (vec![b'o'; 6000], vec![b'n'; 9000]);
        replace_file(&*files, Path::new(DIR), NAME, &old).map_err(|error| error.into_file_error())?;
        let first = files.event_count();
        replace(&*files, &new)?;

        println!("Replacing {NAME} {title}; the power is cut before each event, 200 times:");
        let events = files.events();
        for event in first..=files.event_count() {
            let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
            for seed in 0..200 {
                let image = files.crash_image_at(event, Crash::PowerCut, seed);
                let found = image.read(&Path::new(DIR).join(NAME), 1 << 20)?;
                let outcome = match found {
                    found if found == old => "old",
                    found if found == new => "new",
                    _ => "TORN",
                };
                *outcomes.entry(outcome).or_default() += 1;
            }
            let next = events.get(event as usize).map_or("(returned)", String::as_str);
            let outcomes: Vec<String> = outcomes.iter().map(|(outcome, times)| format!("{outcome} {times}")).collect();
            println!("  {next:<42} {}", outcomes.join(", "));
        }
        println!();
    }
    Ok(())
}
