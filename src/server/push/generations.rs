//! The pools of all generations whose connections are held, as those of the one that serves (pure).

/// The generations, by the process ids of their supervisors.
#[derive(Debug, Default)]
pub struct GenerationPools {
    /// The one that serves.
    current: Option<i32>,
    /// Those before, in their order: for each of their pools, the one of the next generation.
    replaced: Vec<(i32, Vec<Option<u64>>)>,
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

    /// The pool that stands for that one now; none if nothing replaces it.
    pub fn pool(&self, supervisor: i32, pool: u64) -> Option<u64> {
        if self.current == Some(supervisor) {
            return Some(pool);
        }
        let first = self.replaced.iter().rposition(|(other, _)| *other == supervisor)?;
        self.replaced[first..].iter().try_fold(pool, |pool, (_, pools)| {
            pools.get(usize::try_from(pool).ok()?).copied().flatten()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_found_over_several_generations() {
        let mut generations = GenerationPools::default();
        assert_eq!((generations.is_served(), generations.pool(1, 0)), (false, None));
        assert!(generations.serve(1) && !generations.serve(1));
        assert_eq!((generations.is_served(), generations.pool(1, 5)), (true, Some(5)));
        generations.replace(1, vec![Some(1), Some(0), None]);
        assert!(generations.serve(2));
        assert_eq!((generations.pool(1, 0), generations.pool(2, 0)), (Some(1), Some(0)));
        generations.replace(2, vec![Some(7), None]);
        generations.serve(3);
        let pools: Vec<_> = (0..4).map(|pool| generations.pool(1, pool)).collect();
        assert_eq!(pools, [None, Some(7), None, None]);
        assert_eq!((generations.pool(2, 0), generations.pool(9, 0)), (Some(7), None));
    }
}
