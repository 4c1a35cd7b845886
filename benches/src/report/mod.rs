//! What runs found, for people: pages with tables and plots, and the tables of the two READMEs.

mod bars;
mod command;
pub(crate) mod lossy;
pub(crate) mod markdown;
mod marked;
mod pages;
mod plot;
mod plots;
mod summary;

use std::path::Path;

pub(crate) use command::{ReportArgs, report};

use crate::compare::Comparison;
use crate::error::Result;
use crate::lossy::Lossy;
use crate::meta::Measured;
use crate::micro::Cost;
use crate::scale::Mesh;

/// Everything that was measured, as far as it was.
#[derive(Debug, Default)]
pub(crate) struct All {
    pub(crate) compare: Option<Measured<Comparison>>,
    pub(crate) lossy: Option<Measured<Lossy>>,
    pub(crate) scale: Option<Measured<Vec<Mesh>>>,
    pub(crate) micro: Option<Measured<Vec<Cost>>>,
}

impl All {
    /// What was written into a folder.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        Ok(Self {
            compare: part(&dir.join("compare.json"))?,
            lossy: part(&dir.join("lossy.json"))?,
            scale: part(&dir.join("scale.json"))?,
            micro: part(&dir.join("micro.json"))?,
        })
    }
}

fn part<T: for<'de> serde::Deserialize<'de>>(file: &Path) -> Result<Option<Measured<T>>> {
    match file.exists() {
        true => Measured::read(file).map(Some),
        false => Ok(None),
    }
}
