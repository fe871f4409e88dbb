use crate::run::Attack;
pub const ATTACKS: &[Attack] = &[];
