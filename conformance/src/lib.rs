//! Which rule of which RFC the code obeys, and which test shows it.
//!
//! Beside code and tests stand citations, in the syntax of the tool `duvet`:
//!
//! ```text
//! //= docs/specs/rfc9293.txt#section-3.4.1
//! //= type=test
//! //# F() MUST NOT be computable from the outside (MUST-9)
//! ```
//!
//! The first line names text and section, `type=test` says that what stands here is a test, and the `//#` lines quote. A
//! quote of RFC 9293 carries the requirement's identifier as the RFC has it; the few that the RFC left without one are known by
//! their words ([`requirements`]). A row of the RFC's table that shares its identifier with others is named by
//! `//= feature=…`, the row's part.
//!
//! [`spec`] reads the texts, [`source`] the citations, [`requirements`] the table and what is not obeyed and why, and
//! [`report`] puts them together: it refuses a quote that the text does not have, a test that is none or is not compiled, and
//! a requirement nobody knows, and writes `docs/conformance.md`. White space and page breaks do not count in a comparison.

pub mod report;
pub mod requirements;
pub mod source;
pub mod spec;
