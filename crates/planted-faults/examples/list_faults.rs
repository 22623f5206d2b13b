//! Prints the registry: every planted fault, what it breaks, and the test that must catch it.

fn main() {
    println!("{} planted faults", planted_faults::FAULTS.len());
    for fault in planted_faults::FAULTS {
        println!("{:<44} {:<4} {}", fault.name, fault.breaks, fault.caught_by);
    }
    let chosen = planted_faults::FAULTS.iter().find(|fault| planted_faults::planted(fault.name));
    println!("planted in this build: {}", chosen.map_or("none", |fault| fault.name));
}
