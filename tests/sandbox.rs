//! The library's sandboxes.
#[path = "support/kvm.rs"]
mod kvm;
use mote_vmm::*;

#[test]
fn smoke() {
    let mut s = Sandbox::builder()
        .module_bytes(
            *br#"(module
      (import "env" "twice" (func $twice (param i32) (result i32)))
      (memory (export "memory") 1)
      (global (export "g") (mut i32) (i32.const 7))
      (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add)
      (func (export "h") (param i32) (result i32) local.get 0 call $twice)
      (func (export "store") (param i32 i32) local.get 0 local.get 1 i32.store)
      (func (export "load") (param i32) (result i32) local.get 0 i32.load)
      (func (export "nop"))
      (func (export "grow") (param i32) (result i32) local.get 0 memory.grow)
      (func (export "trap") unreachable))"#,
        )
        .func("env", "twice", |c: Caller<'_>, a: i32| -> Result<i32, std::io::Error> {
            if a < 0 {
                Err(std::io::Error::other("neg"))
            } else {
                let _ = c.memory_bytes();
                Ok(a * 2)
            }
        })
        .build()
        .unwrap();
    println!("{:?}", s.exports());
    assert_eq!(s.call::<_, i32>("add", (2, 3)).unwrap(), 5);
    assert_eq!(s.call::<_, i32>("h", 21).unwrap(), 42);
    let e = s.call::<_, i32>("h", -1).unwrap_err();
    assert!(e.host_error::<std::io::Error>().is_some(), "{e:?}");
    s.clear_poison().unwrap();
    let snap = s.snapshot().unwrap();
    s.call::<_, ()>("store", (100, 77)).unwrap();
    assert_eq!(s.call::<_, i32>("load", 100).unwrap(), 77);
    let mut b = [0; 4];
    s.read_memory(100, &mut b).unwrap();
    assert_eq!(b, [77, 0, 0, 0]);
    s.restore(&snap).unwrap();
    assert_eq!(s.call::<_, i32>("load", 100).unwrap(), 0);
    let mut t = Sandbox::from_snapshot(&snap).unwrap();
    assert_eq!(t.call::<_, i32>("h", 4).unwrap(), 8);
    assert_eq!(t.call::<_, i32>("grow", 100).unwrap(), 1);
    t.write_memory(50 * 65536, b"abc").unwrap();
    let e = t.call::<_, ()>("trap", ()).unwrap_err();
    println!("{e}");
    t.restore(&snap).unwrap();
    assert_eq!(t.memory_bytes().unwrap(), 65536);
    assert_eq!(t.global("g").unwrap(), Value::I32(7));
    let time = |name: &str, n: u32, f: &mut dyn FnMut()| {
        let mut v: Vec<f64> = (0..n)
            .map(|_| {
                let t = std::time::Instant::now();
                f();
                t.elapsed().as_nanos() as f64 / 1e3
            })
            .collect();
        v.sort_by(f64::total_cmp);
        println!("{name}: min {:.1} med {:.1} p90 {:.1}", v[0], v[v.len() / 2], v[v.len() * 9 / 10]);
    };
    let nop = t.func::<(), ()>("nop").unwrap();
    time("warm call", 3000, &mut || t.call_func(nop, ()).unwrap());
    let h = t.func::<i32, i32>("h").unwrap();
    time("host call", 3000, &mut || {
        t.call_func(h, 1).unwrap();
    });
    time("clean call", 2000, &mut || {
        t.call_func(nop, ()).unwrap();
        t.restore(&snap).unwrap();
    });
    println!("{:?}", t.counters());
    time("restore only", 2000, &mut || {
        t.restore(&snap).unwrap();
    });
    time("copy+call+drop", 300, &mut || {
        let mut t = Sandbox::from_snapshot(&snap).unwrap();
        t.call_func(nop, ()).unwrap();
    });
    time("copy+drop", 300, &mut || {
        let _t = Sandbox::from_snapshot(&snap).unwrap();
    });
    let dir = tempfile::tempdir().unwrap();
    let f = dir.path().join("a.snap");
    snap.save(&f).unwrap();
    println!("file {}", std::fs::metadata(&f).unwrap().len());
    println!("{:?}", Snapshot::verify(&f).unwrap().stored_bytes);
    let l = Snapshot::load(&f).unwrap();
    let mut u = l.sandbox().func("env", "twice", |_: Caller<'_>, a: i32| a * 3).build().unwrap();
    assert_eq!(u.call::<_, i32>("h", 4).unwrap(), 12);
    u.restore(&l).unwrap();
    assert_eq!(u.call::<_, i32>("add", (4, 5)).unwrap(), 9);
}
