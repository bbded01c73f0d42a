//! Who hears which topic, and what topics remember (pure). Streams are known by their numbers.

use std::collections::HashMap;
use std::rc::Rc;

use super::history::History;
use super::message::TopicMessage;

/// No subscription.
pub const NONE: u32 = u32::MAX;

struct Topic {
    name: Rc<[u8]>,
    /// The first of its subscriptions.
    first: u32,
    count: u32,
    history: Option<Box<History>>,
}

/// A stream hears a topic. Those of a topic are a list, and those of a stream.
#[derive(Clone, Copy)]
struct Subscription {
    stream: u32,
    topic: u32,
    previous: u32,
    next: u32,
    /// The next one of the stream.
    sibling: u32,
}

/// What a client has missed.
pub enum Missed {
    /// More than is known.
    TooMuch,
    /// These messages.
    Messages(Vec<Rc<TopicMessage>>),
}

/// The topics. There are only those that somebody hears, or that have a history.
pub struct Topics {
    names: HashMap<Rc<[u8]>, u32>,
    topics: Vec<Topic>,
    free_topics: Vec<u32>,
    subscriptions: Vec<Subscription>,
    free_subscriptions: Vec<u32>,
    /// The subscription that gets the current message next.
    cursor: u32,
    /// The number of the last message.
    number: u64,
}

impl Default for Topics {
    fn default() -> Self {
        Topics {
            names: HashMap::new(),
            topics: Vec::new(),
            free_topics: Vec::new(),
            subscriptions: Vec::new(),
            free_subscriptions: Vec::new(),
            cursor: NONE,
            number: 0,
        }
    }
}

impl Topics {
    /// These topics have a history, each with its length in messages, and no others.
    pub fn declare(&mut self, declared: &[(Vec<u8>, usize)]) {
        let others = self.topics.iter().enumerate().filter(|(_, topic)| topic.history.is_some());
        let others: Vec<u32> = others
            .filter(|(_, topic)| !declared.iter().any(|(name, _)| **name == *topic.name))
            .map(|(index, _)| index as u32)
            .collect();
        for index in others {
            self.topics[index as usize].history = None;
            self.tidy(index);
        }
        for (name, most) in declared {
            let index = self.enter(name);
            match &mut self.topics[index as usize].history {
                Some(history) => history.resize(*most),
                none => *none = Some(Box::new(History::new(*most))),
            }
        }
    }

    /// How many streams hear a topic.
    pub fn count(&self, name: &[u8]) -> u64 {
        self.names.get(name).map_or(0, |index| u64::from(self.topics[*index as usize].count))
    }

    /// A stream hears a topic from now on. `first` is the first of its subscriptions; gives the new one.
    pub fn subscribe(&mut self, stream: u32, name: &[u8], first: u32) -> u32 {
        let index = self.enter(name);
        if self.siblings(first).any(|it| self.subscriptions[it as usize].topic == index) {
            return first;
        }
        let topic = &mut self.topics[index as usize];
        let next = topic.first;
        let subscription =
            Subscription { stream, topic: index, previous: NONE, next, sibling: first };
        let place = match self.free_subscriptions.pop() {
            Some(place) => {
                self.subscriptions[place as usize] = subscription;
                place
            }
            None => {
                self.subscriptions.push(subscription);
                (self.subscriptions.len() - 1) as u32
            }
        };
        topic.first = place;
        topic.count += 1;
        if next != NONE {
            self.subscriptions[next as usize].previous = place;
        }
        place
    }

    fn siblings(&self, first: u32) -> impl Iterator<Item = u32> {
        let some = |place: u32| (place != NONE).then_some(place);
        std::iter::successors(some(first), move |place| {
            some(self.subscriptions[*place as usize].sibling)
        })
    }

    /// A stream hears nothing any more; `first` is the first of its subscriptions.
    pub fn unsubscribe(&mut self, first: u32) {
        let mut place = first;
        while place != NONE {
            let Subscription { topic, previous, next, sibling, .. } =
                self.subscriptions[place as usize];
            match previous {
                NONE => self.topics[topic as usize].first = next,
                previous => self.subscriptions[previous as usize].next = next,
            }
            if next != NONE {
                self.subscriptions[next as usize].previous = previous;
            }
            if self.cursor == place {
                self.cursor = next;
            }
            self.topics[topic as usize].count -= 1;
            self.free_subscriptions.push(place);
            self.tidy(topic);
            place = sibling;
        }
    }

    /// A message was published: it is passed on by [`Topics::next`].
    pub fn publish(&mut self, name: &[u8], message: &Rc<TopicMessage>) {
        self.number += 1;
        self.cursor = NONE;
        let Some(index) = self.names.get(name) else { return };
        let topic = &mut self.topics[*index as usize];
        self.cursor = topic.first;
        if let Some(history) = &mut topic.history {
            history.add(self.number, message.clone());
        }
    }

    /// The next stream that is to get the message.
    pub fn next(&mut self) -> Option<u32> {
        if self.cursor == NONE {
            return None;
        }
        let Subscription { stream, next, .. } = self.subscriptions[self.cursor as usize];
        self.cursor = next;
        Some(stream)
    }

    /// What a client has missed that has all messages up to the one with this id, on the topics that its stream
    /// hears, in their order.
    pub fn missed(&self, first: u32, last_id: &[u8]) -> Missed {
        let topics = self.siblings(first).map(|it| self.subscriptions[it as usize].topic as usize);
        let histories: Vec<_> =
            topics.filter_map(|topic| self.topics[topic].history.as_deref()).collect();
        if histories.is_empty() {
            return Missed::Messages(Vec::new());
        }
        let known = histories.iter().filter_map(|history| history.find(last_id)).max();
        let Some(number) = known.filter(|it| histories.iter().all(|other| other.reaches(*it)))
        else {
            return Missed::TooMuch;
        };
        let mut missed: Vec<_> = histories.iter().flat_map(|it| it.since(number)).collect();
        missed.sort_by_key(|(number, _)| *number);
        Missed::Messages(missed.into_iter().map(|(_, message)| message.clone()).collect())
    }

    /// The topic of that name, which exists from now on.
    fn enter(&mut self, name: &[u8]) -> u32 {
        if let Some(index) = self.names.get(name) {
            return *index;
        }
        let name: Rc<[u8]> = name.into();
        let topic = Topic { name: name.clone(), first: NONE, count: 0, history: None };
        let index = match self.free_topics.pop() {
            Some(index) => {
                self.topics[index as usize] = topic;
                index
            }
            None => {
                self.topics.push(topic);
                (self.topics.len() - 1) as u32
            }
        };
        self.names.insert(name, index);
        index
    }

    /// A topic that nobody hears and that remembers nothing does not exist.
    fn tidy(&mut self, index: u32) {
        let topic = &mut self.topics[index as usize];
        if topic.count == 0 && topic.history.is_none() {
            self.names.remove(&topic.name);
            topic.name = Rc::new([]);
            self.free_topics.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str) -> Rc<TopicMessage> {
        Rc::new(TopicMessage::new(Some(id.as_bytes().to_vec()), Vec::new()))
    }

    fn heard(topics: &mut Topics, name: &[u8]) -> Vec<u32> {
        topics.publish(name, &message(""));
        let mut all: Vec<u32> = std::iter::from_fn(|| topics.next()).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn a_message_is_for_those_who_hear_its_topic() {
        let mut topics = Topics::default();
        let one = topics.subscribe(1, b"a", NONE);
        let one = topics.subscribe(1, b"b", one);
        assert_eq!(topics.subscribe(1, b"a", one), one, "it hears that already");
        let two = topics.subscribe(2, b"a", NONE);
        let three = topics.subscribe(3, b"a", NONE);
        assert_eq!(heard(&mut topics, b"a"), [1, 2, 3]);
        assert_eq!((heard(&mut topics, b"b"), heard(&mut topics, b"c")), (vec![1], vec![]));
        assert_eq!((topics.count(b"a"), topics.count(b"c")), (3, 0));
        topics.unsubscribe(two);
        assert_eq!(heard(&mut topics, b"a"), [1, 3]);
        topics.unsubscribe(one);
        topics.unsubscribe(three);
        assert_eq!((heard(&mut topics, b"a").len(), topics.names.len()), (0, 0));
        assert_eq!(topics.free_topics.len(), topics.topics.len());
        assert_eq!(topics.free_subscriptions.len(), topics.subscriptions.len());
    }

    #[test]
    fn who_leaves_while_a_message_is_passed_on_does_not_disturb_the_others() {
        let mut topics = Topics::default();
        let places: Vec<u32> = (0..4).map(|stream| topics.subscribe(stream, b"a", NONE)).collect();
        topics.publish(b"a", &message(""));
        let first = topics.next().unwrap();
        let next = if first == 3 { 2 } else { 3 };
        topics.unsubscribe(places[first as usize]);
        topics.unsubscribe(places[next as usize]);
        let mut rest: Vec<u32> = std::iter::from_fn(|| topics.next()).collect();
        rest.sort_unstable();
        assert_eq!(rest, [0, 1]);
    }

    fn missed(topics: &Topics, first: u32, last_id: &[u8]) -> Option<Vec<String>> {
        match topics.missed(first, last_id) {
            Missed::TooMuch => None,
            Missed::Messages(messages) => {
                let id = |message: &Rc<TopicMessage>| {
                    message.id.as_deref().unwrap().escape_ascii().to_string()
                };
                Some(messages.iter().map(id).collect())
            }
        }
    }

    #[test]
    fn what_was_missed_comes_in_order_from_all_topics_of_a_stream() {
        let mut topics = Topics::default();
        topics.declare(&[(b"a".to_vec(), 2), (b"b".to_vec(), 9)]);
        for (name, id) in [(b"a", "1"), (b"b", "2"), (b"a", "3"), (b"b", "4"), (b"c", "5")] {
            topics.publish(name, &message(id));
        }
        let both = topics.subscribe(1, b"a", NONE);
        let both = topics.subscribe(1, b"b", both);
        let only_b = topics.subscribe(2, b"b", NONE);
        let forgetful = topics.subscribe(3, b"c", NONE);
        assert_eq!(missed(&topics, both, b"1").unwrap(), ["2", "3", "4"]);
        assert_eq!(missed(&topics, both, b"3").unwrap(), ["4"]);
        assert_eq!(missed(&topics, only_b, b"2").unwrap(), ["4"]);
        assert_eq!(missed(&topics, only_b, b"4").unwrap(), Vec::<String>::new());
        assert_eq!((missed(&topics, both, b"5"), missed(&topics, only_b, b"1")), (None, None));
        assert_eq!(missed(&topics, forgetful, b"5").unwrap(), Vec::<String>::new());
        topics.publish(b"a", &message("6"));
        topics.publish(b"a", &message("7"));
        assert_eq!(missed(&topics, both, b"2"), None, "3 is forgotten");
        assert_eq!(missed(&topics, both, b"4").unwrap(), ["6", "7"]);
        topics.declare(&[(b"a".to_vec(), 1)]);
        assert_eq!(missed(&topics, only_b, b"2").unwrap(), Vec::<String>::new());
        assert_eq!(missed(&topics, both, b"6").unwrap(), ["7"]);
    }
}
