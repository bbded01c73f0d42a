//! The last messages of a topic (pure).

use std::collections::VecDeque;
use std::rc::Rc;

use super::message::TopicMessage;

/// The last messages of a topic, each with its number: those of all topics are numbered in one order.
pub struct History {
    most: usize,
    messages: VecDeque<(u64, Rc<TopicMessage>)>,
    /// The number and the id of the last message that is not here any more.
    forgotten: Option<(u64, Option<Box<[u8]>>)>,
}

impl History {
    /// Keeps the last `most` messages.
    pub fn new(most: usize) -> Self {
        History { most, messages: VecDeque::new(), forgotten: None }
    }

    /// Keeps the last `most` messages from now on.
    pub fn resize(&mut self, most: usize) {
        self.most = most;
        self.forget();
    }

    /// A message was published.
    pub fn add(&mut self, number: u64, message: Rc<TopicMessage>) {
        self.messages.push_back((number, message));
        self.forget();
    }

    fn forget(&mut self) {
        while self.messages.len() > self.most {
            let first = self.messages.pop_front();
            self.forgotten = first.map(|(number, message)| (number, message.id.clone()));
        }
    }

    /// The number of the last message with this id, as long as all after it are here.
    pub fn find(&self, id: &[u8]) -> Option<u64> {
        let newest = self.messages.iter().rev().map(|(number, it)| (number, &it.id));
        let mut known = newest.chain(self.forgotten.iter().map(|(number, id)| (number, id)));
        known.find(|(_, other)| other.as_deref() == Some(id)).map(|(number, _)| *number)
    }

    /// Whether all messages after that number are here.
    pub fn reaches(&self, number: u64) -> bool {
        self.forgotten.as_ref().is_none_or(|(forgotten, _)| *forgotten <= number)
    }

    /// The messages after that number.
    pub fn since(&self, number: u64) -> impl Iterator<Item = (u64, &Rc<TopicMessage>)> {
        let first = self.messages.partition_point(|(other, _)| *other <= number);
        self.messages.range(first..).map(|(number, message)| (*number, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_messages_are_known() {
        let mut history = History::new(2);
        for number in [3, 5, 9] {
            let id = number.to_string().into_bytes();
            history.add(number, Rc::new(TopicMessage::new(Some(id), Vec::new())));
        }
        assert_eq!((history.find(b"3"), history.find(b"5")), (Some(3), Some(5)));
        assert!(history.reaches(3) && !history.reaches(2));
        let since = |history: &History, number| -> Vec<u64> {
            history.since(number).map(|(number, _)| number).collect()
        };
        assert_eq!((since(&history, 5), since(&history, 4)), (vec![9], vec![5, 9]));
        history.resize(1);
        assert!(since(&history, 0) == [9] && !history.reaches(4) && history.find(b"3").is_none());
    }
}
