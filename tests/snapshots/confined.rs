//! [`mote_vmm::Sandbox::confine`]: everything that a confined thread is to be able to do with its sandbox. What it cannot is
//! tested beside the filters, in `vmm/src/confinement/`.

use std::{thread, time::Duration};

use mote_vmm::{AccessError, CallError, Caller, Confinement, Poison, Sandbox, SandboxState, Snapshot};

use crate::{Folder, support::engine::sandbox_builder};

const MODULE: &str = r#"(module
  (import "host" "sum" (func $sum (param i32 i32) (result i32)))
  (memory (export "memory") 64)
  (data (i32.const 100) "\01\02\03")
  (func (export "sum") (param i32) (result i32)
    (i32.store8 (i32.const 103) (local.get 0))
    (call $sum (i32.const 100) (i32.const 4)))
  (func (export "touch") (memory.fill (i32.const 65536) (i32.const 1) (i32.const 4000000)))
  (func (export "grow") (drop (memory.grow (i32.const 1000))) (memory.fill (i32.const 4194304) (i32.const 1) (i32.const 65536000)))
  (func (export "trap") unreachable)
  (func (export "spin") (loop (br 0))))"#;

fn sum(mut caller: Caller<'_>, at: u32, bytes: u32) -> Result<u32, AccessError> {
    let read = caller.read_memory_to_vec(at.into(), bytes.into())?;
    caller.write_memory(at.into(), &[9])?;
    Ok(read.into_iter().map(u32::from).sum())
}

fn use_confined(mut sandbox: Sandbox, snapshot: &Snapshot) {
    sandbox.confine(Confinement::BestEffort).unwrap();
    for round in 0..20 {
        assert_eq!(sandbox.call::<_, i32>("sum", 4).unwrap(), 10);
        assert_eq!(sandbox.call::<_, i32>("sum", 4).unwrap(), 18);
        if round % 5 == 0 {
            sandbox.call::<_, ()>("touch", ()).unwrap();
            sandbox.call::<_, ()>("grow", ()).unwrap();
            assert!(matches!(sandbox.call::<_, ()>("trap", ()), Err(CallError::Trap(_))));
            assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::Trapped));
            sandbox.restore(snapshot).unwrap();
            sandbox.set_deadline(Some(Duration::from_millis(60)));
            assert!(matches!(sandbox.call::<_, ()>("spin", ()), Err(CallError::DeadlineExceeded)));
            sandbox.set_deadline(None);
        }
        sandbox.restore(snapshot).unwrap();
    }
    assert!(sandbox.stats().touched_bytes > 0);
}

#[test]
fn calls_and_restores_go_on_behind_the_filter() {
    let Some(folder) = Folder::new() else { return };
    let mut sandbox = sandbox_builder().module_bytes(MODULE).func("host", "sum", sum).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    snapshot.save(&folder.path("a.snap")).unwrap();
    let loaded = Snapshot::load(&folder.path("a.snap")).unwrap();
    let of_file = loaded.sandbox().func("host", "sum", sum).build().unwrap();
    let copy = Sandbox::from_snapshot(&snapshot).unwrap();
    for (sandbox, snapshot) in [(sandbox, snapshot.clone()), (copy, snapshot), (of_file, loaded)] {
        thread::spawn(move || use_confined(sandbox, &snapshot)).join().unwrap();
    }
    // This thread is as free as before.
    assert!(Snapshot::load(&folder.path("a.snap")).is_ok());
}
