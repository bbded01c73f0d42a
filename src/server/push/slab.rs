//! Values at places that are used again, each with a generation that tells one value of a place from the next
//! (pure).

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// The values.
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds a value. Returns its place and generation; returns the value if there is no memory.
    pub fn insert(&mut self, value: T) -> Result<(u32, u32), T> {
        if let Some(place) = self.free.pop() {
            let slot = &mut self.slots[place as usize];
            slot.value = Some(value);
            return Ok((place, slot.generation));
        }
        if self.slots.try_reserve(1).is_err()
            || self.free.try_reserve(self.slots.len() + 1).is_err()
        {
            return Err(value);
        }
        self.slots.push(Slot { generation: 0, value: Some(value) });
        Ok(((self.slots.len() - 1) as u32, 0))
    }

    /// The value at a place.
    pub fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.slots.get_mut(place as usize)?.value.as_mut()
    }

    /// The generation of a place.
    pub fn generation(&self, place: u32) -> u32 {
        self.slots.get(place as usize).map_or(0, |slot| slot.generation)
    }

    /// Whether the value at a place is of that generation.
    pub fn has(&self, place: u32, generation: u32) -> bool {
        let slot = self.slots.get(place as usize);
        slot.is_some_and(|slot| slot.generation == generation && slot.value.is_some())
    }

    /// Takes the value at a place.
    pub fn remove(&mut self, place: u32) -> Option<T> {
        let slot = self.slots.get_mut(place as usize)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(place);
        Some(value)
    }

    /// All places with a value.
    pub fn places(&self) -> Vec<u32> {
        let taken = self.slots.iter().enumerate().filter(|(_, slot)| slot.value.is_some());
        taken.map(|(place, _)| place as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_used_again_has_another_generation() {
        let mut slab = Slab::default();
        let (place, generation) = slab.insert("one").unwrap();
        assert_eq!(slab.insert("two"), Ok((1, 0)));
        assert!(slab.has(place, generation) && slab.len() == 2);
        assert_eq!((slab.remove(place), slab.remove(place)), (Some("one"), None));
        assert_eq!(slab.insert("three"), Ok((place, generation + 1)));
        assert!(!slab.has(place, generation) && slab.generation(place) == generation + 1);
        assert_eq!((slab.places(), slab.get_mut(1).copied()), (vec![0, 1], Some("two")));
    }
}
