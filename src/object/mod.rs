//! What an object is: how it is traced, rebranded and dropped.
//!
//! Nothing here knows of mark bits, spans or phases. A trace hands raw addresses to a bounded buffer ([`Tracer`]);
//! the collector drains it.

pub(crate) mod counting;
pub(crate) mod impls;
pub(crate) mod questions;
pub(crate) mod trace;
pub(crate) mod type_info;
