//! What has begun and is not complete: answers of several frames, and a group of notifications.

use crate::RequestId;
use alloc::collections::BTreeMap;

/// The octets of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Begun {
    group: u64,
    answers: BTreeMap<RequestId, Started>,
    /// The sums over all these answers.
    octets: u64,
    kept: usize,
}

/// Octets of the parts read of an answer, and those of them that the protocol keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Started {
    octets: u64,
    kept: usize,
}

impl Begun {
    /// A part of the answer to `id`.
    pub(super) fn part(&mut self, id: RequestId, octets: usize, is_kept: bool) {
        let kept = if is_kept { octets } else { 0 };
        let answer = self.answers.entry(id).or_default();
        (answer.octets, answer.kept) = (answer.octets + octets as u64, answer.kept + kept);
        (self.octets, self.kept) = (self.octets + octets as u64, self.kept + kept);
    }

    /// A part of the group of the mode.
    pub(super) fn notification(&mut self, octets: usize) {
        self.group += octets as u64;
    }

    /// Nothing of the answer to `id` is to come any more.
    pub(super) fn end_answer(&mut self, id: RequestId) {
        let answer = self.answers.remove(&id).unwrap_or_default();
        (self.octets, self.kept) = (self.octets - answer.octets, self.kept - answer.kept);
    }

    pub(super) fn end_group(&mut self) {
        self.group = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.group == 0 && self.answers.is_empty()
    }

    pub(super) fn octets(&self) -> u64 {
        self.group + self.octets
    }

    pub(super) fn kept(&self) -> usize {
        self.kept
    }
}
