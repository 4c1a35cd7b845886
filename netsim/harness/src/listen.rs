//! Hears what processes log: each event with the process that said it and the virtual time.

use std::collections::BTreeMap;
use std::fmt;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use weft_netsim_heap::Outside;
use weft_netsim_sim::current_process;

use crate::observer::Observer;

/// The fields of an event, as text.
pub(crate) type Fields = BTreeMap<&'static str, String>;

/// Feeds the observer of one run.
pub(crate) struct Ears {
    pub(crate) observer: Observer,
}

impl Subscriber for Ears {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        *metadata.level() <= Level::INFO
            && metadata.is_event()
            && (target == "access" || target.starts_with("weft"))
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(process) = current_process() else {
            return;
        };
        // What is noted of a process is not its own.
        let _outside = Outside::step();
        let mut fields = Collected(Fields::new());
        event.record(&mut fields);
        if event.metadata().target() == "access" {
            self.observer.access(process, &fields.0);
        } else {
            self.observer
                .said(process, *event.metadata().level(), &fields.0);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Collected(Fields);

impl Visit for Collected {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}
