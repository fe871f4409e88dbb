//! The end of a script. Alone in its program: descriptors' numbers matter, and they are the whole process's.

mod script;

use script::{accepted, limited};

#[test]
fn a_script_ends() {
    limited(|| {
        // packetdrill closes with the C library's `close`, clears up with a reset, and then frees the instance.
        let (stack, listener, fd, mut peer) = accepted("", false);
        // SAFETY: nobody else has these descriptors.
        unsafe {
            assert_eq!(libc::close(fd), 0);
        }
        // The next socket may get the same descriptor. The connection behind it is closed with it.
        while stack.socket(false, 0) != fd {}
        peer.expect("FA 1:1 ack 1");
        peer.send("RA 1:1 ack 2");
        // SAFETY: nobody else has it.
        unsafe {
            assert_eq!(libc::close(listener), 0);
        }
        stack.free();
    });
}
