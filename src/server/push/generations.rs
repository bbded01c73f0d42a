//! The pools of all generations whose connections are held, as those of the one that serves (pure).

/// The generations, by the process ids of their supervisors.
#[derive(Debug, Default)]
pub struct GenerationPools {
    /// The one that serves.
    current: Option<i32>,
    /// Those before, in their order: for each of their pools, the one of the next generation.
    replaced: Vec<(i32, Vec<Option<u64>>)>,
}

/// A pool of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolPlace {
    /// The supervisor of the generation.
    pub supervisor: i32,
    /// The pool there.
    pub pool: u64,
    /// Nothing replaces it: its connections end.
    pub ends: bool,
}

impl GenerationPools {
    /// Whether one serves.
    pub fn is_served(&self) -> bool {
        self.current.is_some()
    }

    /// This one serves from now on. Returns whether that is new.
    pub fn serve(&mut self, supervisor: i32) -> bool {
        self.current.replace(supervisor) != Some(supervisor)
    }

    /// This one is replaced; for each of its pools, the one that replaces it.
    pub fn replace(&mut self, supervisor: i32, pools: Vec<Option<u64>>) {
        self.replaced.push((supervisor, pools));
    }

    /// Where the connections of that pool belong now. None if its generation is not known.
    pub fn place(&self, supervisor: i32, mut pool: u64) -> Option<PoolPlace> {
        let Some(first) = self.replaced.iter().rposition(|(other, _)| *other == supervisor) else {
            let is_current = self.current == Some(supervisor);
            return is_current.then_some(PoolPlace { supervisor, pool, ends: false });
        };
        for (supervisor, pools) in &self.replaced[first..] {
            let heir = usize::try_from(pool).ok().and_then(|pool| *pools.get(pool)?);
            // The next generation may not serve yet.
            if heir.is_none() || self.current == Some(*supervisor) {
                return Some(PoolPlace { supervisor: *supervisor, pool, ends: heir.is_none() });
            }
            pool = heir?;
        }
        self.current.map(|supervisor| PoolPlace { supervisor, pool, ends: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_found_over_several_generations() {
        let mut generations = GenerationPools::default();
        let place = |supervisor, pool| Some(PoolPlace { supervisor, pool, ends: false });
        let last = |supervisor, pool| Some(PoolPlace { supervisor, pool, ends: true });
        assert_eq!((generations.is_served(), generations.place(1, 0)), (false, None));
        assert!(generations.serve(1) && !generations.serve(1));
        assert_eq!((generations.is_served(), generations.place(1, 5)), (true, place(1, 5)));
        generations.replace(1, vec![Some(1), Some(0), None]);
        let pools: Vec<_> = (0..4).map(|pool| generations.place(1, pool)).collect();
        assert_eq!(pools, [place(1, 0), place(1, 1), last(1, 2), last(1, 3)], "2 does not serve");
        assert!(generations.serve(2));
        assert_eq!((generations.place(1, 0), generations.place(2, 0)), (place(2, 1), place(2, 0)));
        generations.replace(2, vec![Some(7), None]);
        assert_eq!((generations.place(1, 0), generations.place(1, 1)), (last(2, 1), place(2, 0)));
        generations.serve(3);
        let pools: Vec<_> = (0..4).map(|pool| generations.place(1, pool)).collect();
        assert_eq!(pools, [last(2, 1), place(3, 7), last(1, 2), last(1, 3)]);
        assert_eq!((generations.place(2, 0), generations.place(9, 0)), (place(3, 7), None));
    }
}
