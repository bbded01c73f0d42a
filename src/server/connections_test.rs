//! Property test: the supervisor's side of connections ([`Handover`]) and the worker's ([`EventLoop`]) run
//! against each other in one process, over their control channels, with clients at the other end and
//! without Lua; now and then another generation takes over. For any sequence of events, no request is lost or
//! answered twice, and no two workers have a connection at the same time.
//!
//! `CONNECTIONS_SEED=n cargo test connections_test` runs the sequence of one seed, `CONNECTIONS_SEEDS=n`
//! as many as that. A sequence that fails is made shorter as long as it fails, and printed.

mod client;
mod generation;
mod operations;
mod simulated_worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use operations::{CLIENTS, Operation, operations};
use world::World;

fn run(operations: &[Operation]) {
    let mut world = World::new();
    operations.iter().for_each(|operation| world.apply(*operation));
    world.settle();
    // Connections without a request are there as well.
    for index in 0..CLIENTS {
        world.apply(Operation::Send(index, false));
    }
    world.settle();
    world.shut_down();
    world.settle();
}

fn fails(operations: &[Operation]) -> bool {
    catch_unwind(AssertUnwindSafe(|| run(operations))).is_err()
}

/// Leaves out what is not needed for the sequence to fail.
fn shorten(mut operations: Vec<Operation>) -> Vec<Operation> {
    let mut index = operations.len();
    while index > 0 {
        index -= 1;
        let mut shorter = operations.clone();
        shorter.remove(index);
        if fails(&shorter) {
            operations = shorter;
        }
    }
    operations
}

#[test]
fn no_connection_is_lost_answered_twice_or_owned_by_two() {
    let setting = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match setting("CONNECTIONS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("CONNECTIONS_SEEDS").unwrap_or(200),
    };
    for seed in seeds {
        let operations = operations(seed);
        if fails(&operations) {
            let shortest = shorten(operations);
            eprintln!("CONNECTIONS_SEED={seed} fails, shortened to {shortest:#?}");
            run(&shortest);
            panic!("the sequence of seed {seed} fails now and then");
        }
    }
}
