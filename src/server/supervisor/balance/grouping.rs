//! Which connections belong together: those whose packets come in at the same processor.
//!
//! Such connections have the same client, or the same queue of the network card. A worker that has
//! to do with one processor only shares its caches with whatever runs there, and wakes it, or is
//! woken by it, once for many requests.
//!
//! This is the arithmetic alone.

use std::collections::{BTreeMap, BTreeSet};

/// A connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The worker that has it, by its position.
    pub worker: usize,
    /// The processor at which its packets come in.
    pub processor: usize,
    /// Whether they came in there before.
    pub settled: bool,
    /// How often it was served of late.
    pub turns: u64,
}

/// What is to be done. Connections and workers are named by their positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Two connections change places.
    Swap(usize, usize),
    /// A connection goes to a worker.
    Move(usize, usize),
}

/// Finds out what to exchange between workers; `free` says of each whether it has nothing to do.
///
/// Two workers divide their connections evenly, by processor, if an eighth of them is better off
/// that way and none of the two gets much more to do. If packets come in at more processors than
/// workers have connections, or fewer workers than `wanted` have any, one that is free gets half of
/// another one's.
pub fn regroup(members: &[Member], free: &[bool], wanted: usize) -> Vec<Step> {
    let mut teams = vec![Team::new(); free.len()];
    for (index, member) in members.iter().enumerate() {
        teams[member.worker].entry(member.processor).or_default().push(index);
    }
    let settled = members.iter().filter(|member| member.settled);
    let processors: BTreeSet<usize> = settled.map(|member| member.processor).collect();
    let mut steps = part(&mut teams, free, wanted.max(processors.len()));
    let active: Vec<usize> = (0..teams.len()).filter(|team| !teams[*team].is_empty()).collect();
    for (position, one) in active.iter().enumerate() {
        for other in &active[position + 1..] {
            let old = (&teams[*one], &teams[*other]);
            if mixed(old.0, old.1) == 0 {
                continue;
            }
            let divided = divide(old.0, old.1);
            if is_better(members, old, (&divided.0, &divided.1)) {
                steps.extend(exchange((*one, &divided.0), (*other, &divided.1), old));
                (teams[*one], teams[*other]) = divided;
            }
        }
    }
    steps
}

/// The connections of a worker, by processor.
type Team = BTreeMap<usize, Vec<usize>>;

fn size(team: &Team) -> usize {
    team.values().map(Vec::len).sum()
}

/// Whether two workers should have their connections divided in the new way.
fn is_better(members: &[Member], old: (&Team, &Team), new: (&Team, &Team)) -> bool {
    let turns = |team: &Team| -> u64 { team.values().flatten().map(|m| members[*m].turns).sum() };
    let (load, new_load) = (turns(old.0).max(turns(old.1)), turns(new.0).max(turns(new.1)));
    let gain = mixed(old.0, old.1).saturating_sub(mixed(new.0, new.1));
    gain > 0 && 8 * gain >= size(old.0) + size(old.1) && 4 * new_load <= 5 * load
}

/// How many connections two workers have of processors of which the other one has more.
fn mixed(one: &Team, other: &Team) -> usize {
    let fewer = |(processor, group): (&usize, &Vec<usize>)| {
        group.len().min(other.get(processor).map_or(0, Vec::len))
    };
    one.iter().map(fewer).sum()
}

/// The steps from what two workers have to what each of them is to have.
fn exchange(one: (usize, &Team), other: (usize, &Team), old: (&Team, &Team)) -> Vec<Step> {
    let (to_other, to_one) = (missing(old.0, one.1), missing(old.1, other.1));
    let pairs = to_one.len().min(to_other.len());
    let swaps = to_one.iter().zip(&to_other).map(|(one, other)| Step::Swap(*one, *other));
    let rest = to_one[pairs..].iter().map(|member| Step::Move(*member, one.0));
    swaps.chain(rest).chain(to_other[pairs..].iter().map(|m| Step::Move(*m, other.0))).collect()
}

/// What is in the team and not in the new one.
fn missing(team: &Team, new: &Team) -> Vec<usize> {
    let kept: BTreeSet<usize> = new.values().flatten().copied().collect();
    team.values().flatten().copied().filter(|member| !kept.contains(member)).collect()
}

/// Gives a free worker half of the connections of the one with most, if too few workers have any.
fn part(teams: &mut [Team], free: &[bool], wanted: usize) -> Vec<Step> {
    let active = teams.iter().filter(|team| !team.is_empty()).count();
    let to = (0..teams.len()).find(|index| free[*index] && teams[*index].is_empty());
    let from = (0..teams.len()).max_by_key(|index| size(&teams[*index]));
    let (Some(to), Some(from)) = (to, from) else { return Vec::new() };
    if active >= wanted || size(&teams[from]) < 2 {
        return Vec::new();
    }
    (teams[from], teams[to]) = divide(&teams[from], &teams[to]);
    teams[to].values().flatten().map(|member| Step::Move(*member, to)).collect()
}

/// Divides the connections of two workers evenly, and so that as few of them as can be have others
/// of their processor at the other worker.
fn divide(one: &Team, other: &Team) -> (Team, Team) {
    let processors: BTreeSet<usize> = one.keys().chain(other.keys()).copied().collect();
    let mut processors: Vec<usize> = processors.into_iter().collect();
    let count = |team: &Team, processor| team.get(&processor).map_or(0, Vec::len) as isize;
    processors.sort_by_key(|processor| count(other, *processor) - count(one, *processor));
    let together = size(one) + size(other);
    let mut room = if size(one) > size(other) { together.div_ceil(2) } else { together / 2 };
    let mut divided = (Team::new(), Team::new());
    for processor in processors {
        let groups = one.get(&processor).into_iter().chain(other.get(&processor));
        let mut group: Vec<usize> = groups.flatten().copied().collect();
        let rest = group.split_off(room.min(group.len()));
        room -= group.len();
        divided.0.insert(processor, group);
        divided.1.insert(processor, rest);
    }
    divided
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections of (worker, processor, how many).
    fn members(groups: &[(usize, usize, usize)]) -> Vec<Member> {
        let group = |(worker, processor, count): &(usize, usize, usize)| {
            let (worker, processor) = (*worker, *processor);
            vec![Member { worker, processor, settled: true, turns: 100 }; *count]
        };
        groups.iter().flat_map(group).collect()
    }

    /// How many connections of each processor the workers have after the steps.
    fn outcome(members: &[Member], free: &[bool], wanted: usize) -> Vec<(usize, usize, usize)> {
        let mut workers: Vec<usize> = members.iter().map(|member| member.worker).collect();
        for step in regroup(members, free, wanted) {
            match step {
                Step::Move(member, worker) => workers[member] = worker,
                Step::Swap(one, other) => workers.swap(one, other),
            }
        }
        let mut counts = BTreeMap::new();
        for (worker, member) in workers.into_iter().zip(members) {
            *counts.entry((worker, member.processor)).or_insert(0) += 1;
        }
        counts.into_iter().map(|((worker, processor), count)| (worker, processor, count)).collect()
    }

    const NONE_FREE: [bool; 4] = [false; 4];

    #[test]
    fn mixed_connections_are_sorted() {
        let mixed = members(&[(0, 0, 4), (0, 1, 4), (1, 0, 4), (1, 1, 4)]);
        assert_eq!(outcome(&mixed, &NONE_FREE[..2], 0), [(0, 0, 8), (1, 1, 8)]);
        let mixed = members(&[(0, 5, 2), (0, 7, 6), (1, 5, 6), (1, 7, 2)]);
        assert_eq!(outcome(&mixed, &NONE_FREE[..2], 0), [(0, 7, 8), (1, 5, 8)]);
        let uneven = members(&[(0, 0, 8), (0, 1, 3), (1, 1, 5)]);
        assert_eq!(outcome(&uneven, &NONE_FREE[..2], 0), [(0, 0, 8), (1, 1, 8)]);
        let four: Vec<_> = (0..4).flat_map(|worker| [(worker, 0, 4), (worker, 1, 4)]).collect();
        let sorted = [(0, 0, 8), (1, 1, 8), (2, 0, 8), (3, 1, 8)];
        assert_eq!(outcome(&members(&four), &NONE_FREE, 0), sorted);
    }

    #[test]
    fn what_is_sorted_or_nearly_so_stays() {
        for groups in [
            &[(0, 0, 8), (1, 1, 8)][..],
            &[(0, 0, 15), (0, 1, 1), (1, 0, 1), (1, 1, 15)],
            &[(0, 3, 11), (1, 3, 5)],
            &[(0, 0, 1), (1, 1, 1)],
            &[(0, 0, 3), (0, 1, 3)],
            &[],
        ] {
            assert_eq!(regroup(&members(groups), &NONE_FREE[..2], 0), []);
        }
    }

    #[test]
    fn nobody_gets_much_more_to_do() {
        let mut mixed = members(&[(0, 0, 4), (0, 1, 4), (1, 0, 4), (1, 1, 4)]);
        for member in mixed.iter_mut().filter(|member| member.processor == 0) {
            member.turns = 1000;
        }
        assert_eq!(regroup(&mixed, &NONE_FREE[..2], 0), []);
    }

    #[test]
    fn a_free_worker_gets_the_connections_of_another_processor() {
        let free = [false, true, true];
        let two = members(&[(0, 0, 1), (0, 1, 1)]);
        assert_eq!(outcome(&two, &free, 0), [(0, 0, 1), (1, 1, 1)]);
        let uneven = members(&[(0, 0, 2), (0, 1, 6), (0, 2, 4)]);
        assert_eq!(outcome(&uneven, &free, 0), [(0, 1, 6), (1, 0, 2), (1, 2, 4)]);
    }

    #[test]
    fn no_more_workers_are_drawn_in_than_are_wanted() {
        let free = [false, false, true];
        assert_eq!(regroup(&members(&[(0, 0, 8), (1, 1, 8)]), &free, 2), []);
        assert_eq!(regroup(&members(&[(0, 0, 8), (1, 0, 8)]), &free, 0), []);
        let one = members(&[(1, 0, 8)]);
        assert_eq!(outcome(&one, &free, 2), [(1, 0, 4), (2, 0, 4)]);
        assert_eq!(outcome(&one, &NONE_FREE[..3], 2), [(1, 0, 8)]);
        // A client that has just moved to another processor is still one client.
        let mut moved = members(&[(0, 0, 4), (0, 1, 4)]);
        moved[7].settled = false;
        moved[..4].iter_mut().for_each(|member| member.settled = false);
        assert_eq!(regroup(&moved, &[false, true], 0), []);
    }
}
