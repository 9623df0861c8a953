//! Random batches against a map, with the store closed and opened in between.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Changes of (space, key): the length of the value, or none to delete.
    Commit(Vec<(usize, u8, Option<usize>)>),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![0_usize..200, 4000_usize..4200, 9000_usize..40_000];
    let change = (0_usize..6, 0_u8..12, proptest::option::weighted(0.7, length));
    let commit = proptest::collection::vec(change, 0..8).prop_map(Step::Commit);
    proptest::collection::vec(prop_oneof![6 => commit, 1 => Just(Step::Reopen)], 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_store_is_a_map(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = open(dir.path());
        let mut map: BTreeMap<(Space, Vec<u8>), Vec<u8>> = BTreeMap::new();
        for (seed, step) in steps.into_iter().enumerate() {
            match step {
                Step::Commit(changes) => {
                    let mut batch = Batch::new();
                    for (space, key, length) in changes {
                        let space = Space::ALL[space];
                        match length {
                            Some(length) => {
                                let value = noise(seed as u64, length);
                                batch.put(space, [key], value.clone());
                                map.insert((space, vec![key]), value);
                            }
                            None => {
                                batch.delete(space, [key]);
                                map.remove(&(space, vec![key]));
                            }
                        }
                    }
                    commit(&store, batch).unwrap();
                }
                Step::Reopen => {
                    drop(store);
                    let opened;
                    (store, opened) = open(dir.path());
                    prop_assert_eq!(opened, Opened::default());
                }
            }
            let expected: Vec<_> =
                map.iter().map(|((space, key), value)| (*space, key.clone(), value.clone())).collect();
            prop_assert_eq!(everything(&store), expected);
        }
        let found = store.verify().unwrap();
        prop_assert_eq!((found.records, found.orphan_chunks, found.bad.len()), (map.len() as u64, 0, 0));
        let usage = store.health().spaces;
        prop_assert_eq!(usage.iter().map(|usage| usage.entries).sum::<u64>(), map.len() as u64);
        prop_assert_eq!(usage.iter().map(|usage| usage.bytes).sum::<u64>(), found.bytes);
    }
}
