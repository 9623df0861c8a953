//! Everything that the table keeps twice, computed again.

use std::collections::{BTreeMap, BTreeSet};

use super::super::deadlines::Subject;
use super::super::units::UnitState;
use super::super::work::{Member, WorkId, WorkState};
use super::super::{Table, Time, Totals, WorkerState};

impl Table {
    pub(crate) fn check_invariants(&self) {
        let mut expected: BTreeMap<Subject, Option<Time>> = BTreeMap::new();
        self.check_works(&mut expected);
        self.check_leases(&mut expected);
        self.check_workers(&mut expected);
        self.check_jobs();
        let deadlines = self.deadlines.check();
        assert_eq!(deadlines.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (subject, at) in expected {
            assert!(at.is_none_or(|at| deadlines[&subject] == at));
        }
    }

    fn ready(&self, member: &Member) -> bool {
        self.jobs[&member.job].units[member.unit as usize].pending == 0
    }

    fn check_works(&self, expected: &mut BTreeMap<Subject, Option<Time>>) {
        let mut queued = BTreeMap::new();
        let (mut waiting, mut leased) = (0, 0);
        for (id, work) in self.works.iter() {
            assert!(!work.members.is_empty() && work.members.is_sorted_by(|a, b| a < b));
            for member in &work.members {
                let unit = &self.jobs[&member.job].units[member.unit as usize];
                assert_eq!((unit.state, unit.work), (UnitState::Open, id));
            }
            assert_eq!(self.works.find(&work.key), Some(id));
            let first_ready = work.members.iter().find(|member| self.ready(member));
            assert_eq!(work.owner, *first_ready.unwrap_or(&work.members[0]));
            assert!(work.reserved_by.is_none() || matches!(work.state, WorkState::Queued { .. }));
            match work.state {
                WorkState::Blocked => assert_eq!(first_ready, None),
                WorkState::Queued { .. } => {
                    assert!(first_ready.is_some());
                    queued.insert((work.owner.job, work.owner.unit), (id, work.memory));
                    if self.ceiling.is_some_and(|ceiling| work.memory > ceiling) {
                        expected.insert(Subject::Unplaceable(id), None);
                    }
                }
                WorkState::BackOff { until } => {
                    expected.insert(Subject::BackOff(id), Some(until));
                }
                WorkState::Leased { attempt } => {
                    assert_eq!(attempt, work.last_attempt);
                    let items = self.leases[&attempt].items.iter().filter(|item| item.work == id);
                    assert_eq!(items.count(), 1);
                }
            }
            let is_leased = matches!(work.state, WorkState::Leased { .. });
            *if is_leased { &mut leased } else { &mut waiting } += u128::from(work.cost);
        }
        self.queue.check(&queued);
        let Totals { waiting_flops, leased_flops, .. } = self.totals;
        assert_eq!((waiting_flops, leased_flops), (waiting, leased));
    }

    fn check_leases(&self, expected: &mut BTreeMap<Subject, Option<Time>>) {
        for (attempt, lease) in &self.leases {
            assert!(!lease.items.is_empty());
            assert!(self.workers[&lease.worker].leases.contains(attempt));
            for item in &lease.items {
                let work = self.works.get(item.work).unwrap();
                assert_eq!(work.state, WorkState::Leased { attempt: *attempt });
                assert!(work.memory <= lease.memory);
            }
            expected.insert(Subject::Progress(*attempt), None);
        }
    }

    fn check_workers(&self, expected: &mut BTreeMap<Subject, Option<Time>>) {
        let mut ready = BTreeSet::new();
        let mut reserved: BTreeMap<WorkId, u64> = BTreeMap::new();
        for (ix, worker) in &self.workers {
            assert_eq!(self.worker_ids[&worker.id], *ix);
            let of_worker = self.leases.iter().filter(|(_, lease)| lease.worker == *ix);
            assert_eq!(worker.leases, of_worker.clone().map(|(attempt, _)| *attempt).collect());
            assert_eq!(worker.held, of_worker.map(|(_, lease)| lease.memory).sum::<u64>());
            let lost = worker.state == WorkerState::Lost;
            let timeout = self.config.lease_timeout;
            expected.insert(Subject::Worker(*ix), (!lost).then(|| worker.last_report.plus(timeout)));
            assert!(!lost || worker.leases.is_empty());
            if worker.state == WorkerState::Ready {
                ready.insert((worker.memory, *ix));
                reserved.extend(worker.reserving.map(|work| (work, *ix)));
            } else {
                assert_eq!(worker.reserving, None);
            }
        }
        assert_eq!(self.worker_ids.len(), self.workers.len());
        assert_eq!(self.live_workers, self.workers.values().filter(|w| w.state != WorkerState::Lost).count());
        assert_eq!(self.ceiling, ready.last().map(|(memory, _)| *memory));
        assert_eq!(self.ready_memory, ready);
        let by_work = self.works.iter().filter_map(|(id, work)| Some((id, work.reserved_by?)));
        assert_eq!(reserved, by_work.collect());
    }

    fn check_jobs(&self) {
        let mut units = 0;
        for (seq, job) in &self.jobs {
            let of_state = |state| job.units.iter().filter(|unit| unit.state == state).count() as u64;
            let counts = &job.counts;
            units += counts.units;
            assert_eq!(counts.units, job.units.len() as u64);
            assert_eq!(counts.done, of_state(UnitState::Done));
            assert_eq!(counts.failed, of_state(UnitState::Failed));
            assert_eq!(counts.set_aside, of_state(UnitState::SetAside));
            assert_eq!(counts.dropped, of_state(UnitState::Dropped));
            assert_eq!(counts.retried, job.units.iter().filter(|unit| unit.starts > 1).count() as u64);
            assert_eq!(self.job_ids[&job.id], *seq);
            let open: Vec<_> = (0..).zip(&job.units).filter(|(_, unit)| unit.is_open()).collect();
            assert_eq!(self.active.contains(seq), !open.is_empty());
            assert_eq!(job.state.is_final(), open.is_empty());
            let mut running = 0;
            for (unit, entry) in open {
                let work = self.works.get(entry.work).unwrap();
                assert!(work.members.contains(&job.member(*seq, unit)));
                running += u64::from(matches!(work.state, WorkState::Leased { .. }));
                let needs = job.dependents.iter().filter(|(_, dependents)| dependents.contains(&unit));
                let not_done = needs.filter(|(need, _)| job.units[**need as usize].state != UnitState::Done);
                assert_eq!(entry.pending as usize, not_done.count());
            }
            assert_eq!(counts.running, running);
        }
        assert_eq!(self.totals.units, units);
        assert_eq!(self.job_ids.len(), self.jobs.len());
    }
}
