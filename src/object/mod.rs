//! What an object is: how it is traced, rebranded and dropped.
//!
//! Nothing here knows mark bits, spans or phases. A trace passes raw addresses to a bounded buffer
//! ([`Tracer`]), which the collector drains.

pub(crate) mod counting;
pub(crate) mod impls;
pub(crate) mod questions;
pub(crate) mod trace;
pub(crate) mod type_info;
