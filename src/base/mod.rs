//! Units and small structures that the layers above share.

pub(crate) mod addr;
pub(crate) mod crowd;
pub(crate) mod div;
pub(crate) mod ptr_buf;
