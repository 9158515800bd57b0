//! Empty: see the manifest.
#![no_std]
