//! A stream that becomes another's twin: both go on from there, each its own way.
use super::Session;
use crate::model::Policy;
use crate::{Error, Result};
use std::sync::Arc;

impl Session {
    /// Becomes what `other` is now, whatever it was before: its keys and values are copied on the device. `other` goes on
    /// undisturbed. Both must be of one model, with the same settings.
    pub fn fork_from(&mut self, other: &Self) -> Result<()> {
        let (here, there) = (self.cache.settings(), other.cache.settings());
        if !Arc::ptr_eq(&self.model, &other.model) || here != there {
            let what = "a stream can be forked from another of the same model and with the same cache alone";
            return Err(Error::Usage(what.into()));
        }
        if here.policy == Policy::HalfDiscard {
            let what = "a stream of half-discard cannot be forked: that policy is there to be compared with; \
                        streaming can";
            return Err(Error::Usage(what.into()));
        }
        self.leave_rows();
        let epoch = self.standing.epoch + 1;
        let gpu = &*self.model.gpu;
        let stored = other.cache.stored().zip(self.cache.stored());
        let logits = (&other.logits, &self.logits);
        let copies: Vec<_> =
            stored.map(|((from, _), (to, _))| (from, to)).chain([logits]).collect();
        gpu.copy(&copies)?;
        self.standing = other.standing.clone();
        self.standing.epoch = epoch;
        self.standing.reach = self.standing.reach.max(self.standing.fed + other.beyond());
        self.sinks_kept = other.sinks_kept;
        gpu.check()
    }
}
