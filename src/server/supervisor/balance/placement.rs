//! Where connections are best placed: pure, from a view of the load to moves.
//!
//! 1. Workers that are stuck in a handler lose all their connections, busy ones what they have beyond
//!    their share.
//! 2. Of the connections that make most of the work, a worker without any gets half of another one's.
//! 3. Two workers divide such connections by the processor that receives their packets. They have the
//!    same client, or the same queue of the network card. A worker that has to do with one processor
//!    shares its caches with whatever runs there, and one wakeup does for many requests.

use std::collections::{BTreeMap, BTreeSet};

use crate::server::supervisor::load::Load;

/// One worker of a pool.
#[derive(Debug, Clone, Copy)]
pub struct WorkerLoad {
    /// How busy it is.
    pub load: Load,
    /// How many connections it has on lease.
    pub leases: usize,
    /// Whether it takes connections.
    pub serves: bool,
}

/// One of the leased connections that make most of the work.
#[derive(Debug, Clone, Copy)]
pub struct HotConnection {
    /// The position of its worker.
    pub worker: usize,
    /// How often it was served since the last sample.
    pub turns: u64,
    /// The processor that received its packets at the last sample, and now. None if that does not
    /// matter: it is served too seldom, or is local.
    pub processors: Option<(usize, usize)>,
}

/// What is known of a pool's load.
#[derive(Debug, Default)]
pub struct View {
    /// Its workers.
    pub workers: Vec<WorkerLoad>,
    /// Its hot connections; none if they were not sampled.
    pub connections: Vec<HotConnection>,
    /// How many processors there are.
    pub processors: usize,
    /// Whether workers leave some of them unused.
    pub spare: bool,
    /// Which pairs of workers are compared: each number means others.
    pub round: usize,
}

/// What is to be done. Workers and connections are named by their positions in the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// So many connections of a worker go to others.
    Away(usize, usize),
    /// A connection goes to a worker.
    To(usize, usize),
}

/// The moves that the load calls for.
pub fn moves(view: &View) -> Vec<Move> {
    let relief = relief(view);
    if !relief.is_empty() {
        // A worker that is stuck takes nothing from the others.
        return relief;
    }
    let mut teams = vec![ByProcessor::new(); view.workers.len()];
    for (index, connection) in view.connections.iter().enumerate() {
        let processor = connection.processors.map_or(usize::MAX, |(_, now)| now);
        teams[connection.worker].entry(processor).or_default().push(index);
    }
    let mut moves = share(view, &mut teams);
    moves.extend(regroup(view, &mut teams));
    moves
}

/// What workers have too many of. If another worker has time, that counts only if a processor has time,
/// too, or if it is more than twice a share: else one more process that runs makes the others wait.
fn relief(view: &View) -> Vec<Move> {
    let serving = view.workers.iter().filter(|worker| worker.serves);
    let (count, leases) = serving.fold((0, 0), |(count, sum), w| (count + 1, sum + w.leases));
    let has_time = view.workers.iter().any(|worker| worker.load == Load::HasTime);
    let surplus = |worker: &WorkerLoad| match worker.load {
        Load::HasTime => 0,
        Load::Stuck => worker.leases,
        Load::Busy => {
            let share: usize = usize::div_ceil(leases, usize::max(count, 1)).max(1);
            let is_unfair = !has_time || view.spare || worker.leases > 2 * share;
            if is_unfair && worker.leases > share + share / 4 { worker.leases - share } else { 0 }
        }
    };
    let surplus = view.workers.iter().map(surplus).enumerate();
    surplus.filter(|(_, count)| *count > 0).map(|(index, count)| Move::Away(index, count)).collect()
}

/// The connections of a worker, by processor.
type ByProcessor = BTreeMap<usize, Vec<usize>>;

fn size(team: &ByProcessor) -> usize {
    team.values().map(Vec::len).sum()
}

/// Gives a worker that has time, and no hot connection, half of those of the worker with most: if a
/// processor has time as well, or if packets come in at more processors than workers have any.
///
/// Connections that are served often occupy a processor each time. More workers than processors would
/// only be in each other's way then.
fn share(view: &View, teams: &mut [ByProcessor]) -> Vec<Move> {
    let active = teams.iter().filter(|team| !team.is_empty()).count();
    let is_brisk = view.connections.iter().any(|connection| connection.processors.is_some());
    let settled = view.connections.iter().filter_map(|connection| connection.processors);
    let processors: BTreeSet<_> =
        settled.filter(|(before, now)| before == now).map(|(_, now)| now).collect();
    if !(view.spare || active < processors.len()) || (is_brisk && active >= view.processors) {
        return Vec::new();
    }
    let worker = |index: &usize| &view.workers[*index];
    let is_free = |index: &usize| {
        teams[*index].is_empty() && worker(index).load == Load::HasTime && worker(index).serves
    };
    let gives = |i: &usize| size(&teams[*i]) > 1 && (is_brisk || worker(i).load == Load::Busy);
    let from = (0..teams.len()).filter(gives).max_by_key(|index| size(&teams[*index]));
    let (Some(to), Some(from)) = ((0..teams.len()).find(is_free), from) else { return Vec::new() };
    (teams[from], teams[to]) = divide(&teams[from], &teams[to]);
    teams[to].values().flatten().map(|connection| Move::To(*connection, to)).collect()
}

/// Lets pairs of workers divide their connections evenly, by processor, if an eighth of them is better
/// off that way and neither of the two gets much more to do. Each worker is in two pairs, in each round
/// with others.
fn regroup(view: &View, teams: &mut [ByProcessor]) -> Vec<Move> {
    let active: Vec<usize> = (0..teams.len()).filter(|index| !teams[*index].is_empty()).collect();
    let mut moves = Vec::new();
    if active.len() < 2 {
        return moves;
    }
    let offset = 1 + view.round % (active.len() - 1);
    for position in 0..active.len() {
        let (one, other) = (active[position], active[(position + offset) % active.len()]);
        let old = (&teams[one], &teams[other]);
        if mixed(old.0, old.1) == 0 {
            continue;
        }
        let new = divide(old.0, old.1);
        if is_better(&view.connections, old, (&new.0, &new.1)) {
            moves.extend(missing(old.0, &new.0).map(|connection| Move::To(connection, other)));
            moves.extend(missing(old.1, &new.1).map(|connection| Move::To(connection, one)));
            (teams[one], teams[other]) = new;
        }
    }
    moves
}

/// Whether two workers should have their connections divided in the new way.
fn is_better(
    connections: &[HotConnection],
    old: (&ByProcessor, &ByProcessor),
    new: (&ByProcessor, &ByProcessor),
) -> bool {
    let turns = |team: &ByProcessor| -> u64 {
        team.values().flatten().map(|c| connections[*c].turns).sum()
    };
    let (load, new_load) = (turns(old.0).max(turns(old.1)), turns(new.0).max(turns(new.1)));
    let gain = mixed(old.0, old.1).saturating_sub(mixed(new.0, new.1));
    gain > 0 && 8 * gain >= size(old.0) + size(old.1) && 4 * new_load <= 5 * load
}

/// How many connections two workers have of processors of which the other one has more.
fn mixed(one: &ByProcessor, other: &ByProcessor) -> usize {
    let fewer = |(processor, group): (&usize, &Vec<usize>)| {
        group.len().min(other.get(processor).map_or(0, Vec::len))
    };
    one.iter().map(fewer).sum()
}

/// What is in the team and not in the new one.
fn missing<'a>(team: &'a ByProcessor, new: &ByProcessor) -> impl Iterator<Item = usize> + use<'a> {
    let members: BTreeSet<usize> = new.values().flatten().copied().collect();
    team.values().flatten().copied().filter(move |connection| !members.contains(connection))
}

/// Divides the connections of two workers evenly, and so that as few of them as possible have others
/// of their processor at the other worker.
fn divide(one: &ByProcessor, other: &ByProcessor) -> (ByProcessor, ByProcessor) {
    let processors: BTreeSet<usize> = one.keys().chain(other.keys()).copied().collect();
    let mut processors: Vec<usize> = processors.into_iter().collect();
    let count = |team: &ByProcessor, processor| team.get(&processor).map_or(0, Vec::len) as isize;
    processors.sort_by_key(|processor| count(other, *processor) - count(one, *processor));
    let together = size(one) + size(other);
    let mut room = if size(one) > size(other) { together.div_ceil(2) } else { together / 2 };
    let mut divided = (ByProcessor::new(), ByProcessor::new());
    for processor in processors {
        let groups = one.get(&processor).into_iter().chain(other.get(&processor));
        let mut group: Vec<usize> = groups.flatten().copied().collect();
        let rest = group.split_off(room.min(group.len()));
        room -= group.len();
        for (team, part) in [(&mut divided.0, group), (&mut divided.1, rest)] {
            if !part.is_empty() {
                team.insert(processor, part);
            }
        }
    }
    divided
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A view of busy workers with connections of (worker, processor, how many).
    fn view(workers: usize, groups: &[(usize, usize, usize)]) -> View {
        let mut view = View { processors: 2, ..View::default() };
        for (worker, processor, count) in groups {
            let processors = Some((*processor, *processor));
            let connection = HotConnection { worker: *worker, turns: 100, processors };
            view.connections.extend(vec![connection; *count]);
        }
        for index in 0..workers {
            let leases = view.connections.iter().filter(|c| c.worker == index).count();
            view.workers.push(WorkerLoad { load: Load::HasTime, leases, serves: true });
        }
        view
    }

    /// How many connections of each processor the workers have in the end.
    fn outcome(mut view: View) -> Vec<(usize, usize, usize)> {
        for round in 0..8 {
            view.round = round;
            for step in moves(&view) {
                let Move::To(connection, worker) = step else { panic!("{step:?}") };
                view.connections[connection].worker = worker;
            }
        }
        let mut counts = BTreeMap::new();
        for connection in &view.connections {
            let processor = connection.processors.unwrap().1;
            *counts.entry((connection.worker, processor)).or_insert(0) += 1;
        }
        counts.into_iter().map(|((worker, processor), count)| (worker, processor, count)).collect()
    }

    #[test]
    fn a_stuck_worker_loses_all_and_a_busy_one_its_surplus() {
        let worker = |load, leases| WorkerLoad { load, leases, serves: true };
        let moves = |workers: &[WorkerLoad], spare| {
            moves(&View { workers: workers.to_vec(), processors: 2, spare, ..View::default() })
        };
        let (stuck, busy) = (worker(Load::Stuck, 3), worker(Load::Busy, 9));
        let (free, few) = (worker(Load::HasTime, 5), worker(Load::Busy, 5));
        assert_eq!(moves(&[stuck, few, few], false), [Move::Away(0, 3)]);
        assert_eq!(moves(&[busy, few], false), [Move::Away(0, 2)]);
        assert_eq!(moves(&[busy, free], false), [], "no processor has time");
        assert_eq!(moves(&[busy, free], true), [Move::Away(0, 2)]);
        let none = worker(Load::HasTime, 0);
        assert_eq!(moves(&[busy, none, none], false), [Move::Away(0, 6)], "far too many");
        assert_eq!(moves(&[worker(Load::Busy, 5), worker(Load::Busy, 6)], true), []);
    }

    #[test]
    fn mixed_connections_are_sorted() {
        let mixed = view(2, &[(0, 0, 4), (0, 1, 4), (1, 0, 4), (1, 1, 4)]);
        assert_eq!(outcome(mixed), [(0, 0, 8), (1, 1, 8)]);
        let mixed = view(2, &[(0, 5, 2), (0, 7, 6), (1, 5, 6), (1, 7, 2)]);
        assert_eq!(outcome(mixed), [(0, 7, 8), (1, 5, 8)]);
        let uneven = view(2, &[(0, 0, 8), (0, 1, 3), (1, 1, 5)]);
        assert_eq!(outcome(uneven), [(0, 0, 8), (1, 1, 8)]);
        let four: Vec<_> = (0..4).flat_map(|worker| [(worker, 0, 4), (worker, 1, 4)]).collect();
        let sorted = outcome(view(4, &four));
        assert_eq!(sorted.len(), 4, "{sorted:?}");
    }

    #[test]
    fn what_is_sorted_or_nearly_so_stays() {
        for groups in [
            &[(0, 0, 8), (1, 1, 8)][..],
            &[(0, 0, 15), (0, 1, 1), (1, 0, 1), (1, 1, 15)],
            &[(0, 3, 11), (1, 3, 5)],
            &[(0, 0, 1), (1, 1, 1)],
            &[(0, 0, 3), (0, 1, 3), (1, 5, 1)],
            &[],
        ] {
            assert_eq!(moves(&view(2, groups)), []);
        }
    }

    #[test]
    fn neither_worker_gets_much_more_to_do() {
        let mut mixed = view(2, &[(0, 0, 4), (0, 1, 4), (1, 0, 4), (1, 1, 4)]);
        for connection in mixed.connections.iter_mut().filter(|c| c.processors == Some((0, 0))) {
            connection.turns = 1000;
        }
        assert_eq!(moves(&mixed), []);
    }

    #[test]
    fn a_free_worker_gets_the_connections_of_another_processor() {
        assert_eq!(outcome(view(3, &[(0, 0, 1), (0, 1, 1)])), [(0, 0, 1), (1, 1, 1)]);
        let uneven = view(3, &[(0, 0, 2), (0, 1, 6), (0, 2, 4)]);
        assert_eq!(outcome(uneven), [(0, 1, 6), (1, 0, 2), (1, 2, 4)]);
    }

    #[test]
    fn no_more_workers_are_drawn_in_than_there_are_processors() {
        let spare = |view| View { spare: true, ..view };
        assert_eq!(moves(&spare(view(3, &[(0, 0, 8), (1, 1, 8)]))), []);
        assert_eq!(moves(&view(3, &[(0, 0, 8), (1, 0, 8)])), []);
        assert_eq!(outcome(spare(view(3, &[(1, 0, 8)]))), [(0, 0, 4), (1, 0, 4)]);
        assert_eq!(moves(&view(3, &[(1, 0, 8)])), []);
        // A client that has just moved to another processor is still one client.
        let mut moved = view(2, &[(0, 0, 4), (0, 1, 4)]);
        for connection in &mut moved.connections {
            connection.processors = connection.processors.map(|(_, now)| (7, now));
        }
        assert_eq!(moves(&moved), []);
    }

    #[test]
    fn slow_requests_are_shared_by_more_workers_than_there_are_processors() {
        let mut slow = View { spare: true, ..view(4, &[(0, 0, 2), (1, 0, 2), (2, 0, 2)]) };
        slow.connections.iter_mut().for_each(|connection| connection.processors = None);
        assert_eq!(moves(&slow), [], "no worker was busy for two");
        slow.workers[1].load = Load::Busy;
        assert_eq!(moves(&slow), [Move::To(3, 3)]);
        slow.spare = false;
        assert_eq!(moves(&slow), []);
    }
}
