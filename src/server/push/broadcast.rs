//! Who hears what, and the message that is being passed on.

use std::mem;
use std::rc::Rc;

use super::message::TopicMessage;
use super::stream::PushStream;
use super::topics::{Missed, NONE, Topics};

/// The topics, and the message that is being passed on.
#[derive(Default)]
pub struct Broadcast {
    topics: Topics,
    current: Option<Rc<TopicMessage>>,
}

impl Broadcast {
    /// The topics.
    pub fn topics(&mut self) -> &mut Topics {
        &mut self.topics
    }

    /// A message was published: it is passed on by [`Broadcast::next`].
    pub fn publish(&mut self, topic: &[u8], message: Rc<TopicMessage>) {
        self.topics.publish(topic, &message);
        self.current = Some(message);
    }

    /// The place of the next stream that gets the current message, and that. None if it is over.
    pub fn next(&mut self) -> Option<(u32, Rc<TopicMessage>)> {
        let place = self.topics.next();
        self.current = self.current.take().filter(|_| place.is_some());
        place.zip(self.current.clone())
    }

    /// The stream at that place hears these topics from now on, and no others.
    pub fn subscribe(&mut self, place: u32, stream: &mut PushStream, topics: &[Vec<u8>]) {
        self.unsubscribe(stream);
        for topic in topics {
            stream.subscriptions = self.topics.subscribe(place, topic, stream.subscriptions);
        }
    }

    /// A stream hears nothing any more.
    pub fn unsubscribe(&mut self, stream: &mut PushStream) {
        self.topics.unsubscribe(mem::replace(&mut stream.subscriptions, NONE));
    }

    /// What a client has missed that comes back, or what stands for that.
    pub fn missed(&self, stream: &PushStream, last_id: &[u8]) -> Vec<Rc<TopicMessage>> {
        match self.topics.missed(stream.subscriptions, last_id) {
            Missed::Messages(messages) => messages,
            Missed::TooMuch => {
                let text = stream.rules.on_gap.clone();
                text.map(|text| Rc::new(TopicMessage::new(None, text))).into_iter().collect()
            }
        }
    }
}
