//! `impostor`
use super::super::mesh::Mesh;
use super::super::report::Findings;
pub(in super::super) async fn run(_mesh: &mut Mesh) -> Result<Findings, String> { Err("x".to_owned()) }
