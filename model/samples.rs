//! The table of live samples, and the places where they were allocated.

mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

    /// Few, since each place multiplies the orders to try.
    pub(super) const WAYS: usize = 2;
}
#[path = "../src/count/allocator/samples/sites.rs"]
mod sites;
#[path = "../src/count/allocator/samples/table.rs"]
mod table;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread;

use sites::{Key, Site, Sites};
use table::{Record, Table};

/// The table of a single level with two places, which all addresses share.
fn table() -> Table {
    Table::new(words(8))
}

fn words(len: usize) -> &'static [AtomicU64] {
    (0..len).map(|_| AtomicU64::new(0)).collect::<Vec<_>>().leak()
}

/// A record in which every word follows from the address.
fn record(address: usize) -> Record {
    Record::new(Site(address as u32), address + 1, 8, address as f64 + 2.0)
}

fn check_up_to(interruptions: usize, check: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(interruptions);
    model.check(check);
}

/// Returns the addresses of the records that a reader sees. Each record has to be whole.
fn seen(table: &Table) -> Vec<usize> {
    let mut all = Vec::new();
    table.for_each(|seen| {
        let address = seen.site().0 as usize;
        assert_eq!(seen, record(address));
        all.push(address);
    });
    all
}

/// Inserts and frees addresses one after the other, where there is a place.
fn pass(table: &Table, addresses: [usize; 2]) {
    for address in addresses {
        if table.insert(address, &record(address)) {
            assert_eq!(table.find(address), Some(record(address)));
            Table::free(&table.take(address).unwrap());
            assert_eq!(table.find(address), None);
        }
    }
}

#[test]
fn a_reader_sees_whole_records_while_a_place_changes_hands() {
    check_up_to(4, || {
        let table = Arc::new(table());
        let writer = {
            let table = Arc::clone(&table);
            thread::spawn(move || pass(&table, [12, 13]))
        };
        // On the thread that is started last: the model checker lets only later threads read between two stores.
        let reader = {
            let table = Arc::clone(&table);
            thread::spawn(move || seen(&table))
        };
        writer.join().unwrap();
        reader.join().unwrap();
        assert!(seen(&table).is_empty());
    });
}

#[test]
fn threads_that_want_one_place_do_not_share_it() {
    check_up_to(3, || {
        let table = Arc::new(table());
        assert!(table.insert(11, &record(11)));
        let other = {
            let table = Arc::clone(&table);
            thread::spawn(move || pass(&table, [12, 13]))
        };
        pass(&table, [14, 15]);
        other.join().unwrap();
        assert_eq!(seen(&table), [11]);
        assert!(table.insert(12, &record(12)), "the place is free again");
    });
}

#[test]
fn another_thread_frees_a_sample() {
    check_up_to(3, || {
        let table = Arc::new(table());
        let passed = Arc::new(AtomicBool::new(false));
        let allocates = {
            let (table, passed) = (Arc::clone(&table), Arc::clone(&passed));
            thread::spawn(move || {
                assert!(table.insert(21, &record(21)));
                passed.store(true, Ordering::Release);
                // The address may be free, and belongs to another block then.
                assert!(table.insert(22, &record(22)));
            })
        };
        if passed.load(Ordering::Acquire) {
            let taken = table.take(21).expect("a sample");
            assert_eq!(taken.record, record(21));
            Table::free(&taken);
        }
        allocates.join().unwrap();
        assert!(matches!(*seen(&table), [21, 22] | [22] | [22, 21]));
    });
}

#[test]
fn a_sample_that_is_taken_out_keeps_its_place() {
    check_up_to(3, || {
        let table = Arc::new(table());
        assert!(table.insert(31, &record(31)));
        let other = {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                let inserted = [32, 33].map(|address| table.insert(address, &record(address)));
                assert_eq!(inserted, [true, false]);
            })
        };
        let taken = table.take(31).unwrap();
        assert_eq!(table.find(31), None);
        assert!(!seen(&table).contains(&31));
        Table::put_back(&taken, 31);
        assert_eq!(table.find(31), Some(record(31)));
        other.join().unwrap();
        assert_eq!(seen(&table).len(), 2);
    });
}

#[test]
fn threads_that_sample_at_one_place_share_it() {
    check_up_to(3, || {
        let sites = Arc::new(Sites::new(words(64)).unwrap());
        let sample = |sites: &Sites| {
            let key = Key { frames: &[7, 8], is_cut: false, task: None, thread: 9 };
            let site = sites.intern(&key).unwrap();
            sites.add(site, 1, 10, 0.5);
            site
        };
        let other = {
            let sites = Arc::clone(&sites);
            thread::spawn(move || {
                let site = sample(&sites);
                sites.subtract(site, 1, 10);
            })
        };
        sample(&sites);
        sites.for_each(|seen| assert!(seen.freed.bytes <= seen.allocated.bytes, "{seen:?}"));
        other.join().unwrap();
        let mut all = Vec::new();
        sites.for_each(|seen| all.push(seen.clone()));
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].allocated.objects, all[0].freed.bytes), (2, 10));
        assert_eq!(all[0].frames, [7, 8]);
        assert!((all[0].variance - 1.0).abs() < 1e-9);
    });
}
