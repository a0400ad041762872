//! Ctrl-C and requests to terminate: noted here, obeyed by whoever waits.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on the first such signal is noted; a second one ends the tool on the spot.
pub fn watch() {
    let asked = ASKED.get_or_init(Default::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Order matters: the second handler would otherwise see the flag that the first
        // has just set.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(asked));
        let _ = signal_hook::flag::register(signal, Arc::clone(asked));
    }
}

/// Whether such a signal came.
pub fn asked() -> bool {
    ASKED
        .get()
        .is_some_and(|asked| asked.load(Ordering::Relaxed))
}
