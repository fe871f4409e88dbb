//! What must hold, independent of what the guest runs on.
