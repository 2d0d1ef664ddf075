//! Properties that hold for all inputs.

use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

use crate::pace::assist::AssistRates;
use crate::pace::cons_mark::MarkTimes;
use crate::pace::heap_goal::{
    BACKGROUND_SHARE, Knobs, MemoryFigures, goal_by_growth, goal_by_limit,
};
use crate::pace::limiter::Limiter;
use crate::pace::pacer::{CycleEnd, Pacer, Plan, Rule};
use crate::pace::scavenge::{RetainGoals, ScavengeInput, ScavengePace};
use crate::pace::sweep_pace::SweepPace;
use crate::pace::trigger::{Runway, trigger};
use crate::pace::workers::Workers;

/// Any number; the ends of the range and everyday sizes are more frequent than by chance.
fn bytes() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        0..1_u64 << 20,
        0..1_u64 << 34,
        any::<u64>(),
    ]
}

fn knobs() -> impl Strategy<Value = Knobs> {
    let gogc = prop_oneof![
        Just(None),
        (0..1000_u32).prop_map(Some),
        any::<u32>().prop_map(Some)
    ];
    let limit = prop_oneof![Just(u64::MAX), bytes()];
    (gogc, limit, any::<u32>(), any::<f64>()).prop_map(|(gogc, limit, processors, background)| {
        Knobs {
            gogc,
            limit,
            processors,
            background,
        }
    })
}

fn memory() -> impl Strategy<Value = MemoryFigures> {
    (bytes(), bytes(), bytes()).prop_map(|(mapped, free, objects)| MemoryFigures {
        mapped,
        free,
        objects,
    })
}

fn times() -> impl Strategy<Value = MarkTimes> {
    (bytes(), bytes(), bytes(), bytes()).prop_map(
        |(duration_ns, background_ns, assist_ns, idle_ns)| MarkTimes {
            duration_ns,
            background_ns,
            assist_ns,
            idle_ns,
        },
    )
}

fn is_sound(rates: AssistRates) -> bool {
    let good = |x: f64| x.is_finite() && x > 0.0;
    good(rates.work_per_byte) && good(rates.bytes_per_work)
}

fn is_ordered(plan: Plan, live: u64) -> bool {
    live <= plan.trigger && plan.trigger <= plan.goal && plan.goal <= plan.ceiling
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_pacer_stays_sound_whatever_it_is_told(
        knobs in knobs(),
        plain in any::<bool>(),
        cycles in proptest::collection::vec(
            (bytes(), bytes(), bytes(), bytes(), times(), memory(), any::<bool>()),
            1..8,
        ),
    ) {
        let rule = if plain { Rule::Plain } else { Rule::Early };
        let mut pacer = Pacer::with_rule(knobs, rule);
        prop_assert!(is_ordered(pacer.plan(), 0));
        for (live, marked, work, roots, times, memory, sweep_done) in cycles {
            prop_assert!(is_sound(pacer.start_cycle(live, work, roots, memory)));
            prop_assert!(is_ordered(pacer.plan(), pacer.marked()));
            prop_assert!(is_sound(pacer.revise(marked, work, live)));
            prop_assert!(is_ordered(pacer.refresh(memory), pacer.marked()));
            pacer.end_cycle(CycleEnd { heap_live: marked, heap_scanned: work, roots_scanned: roots, times });
            pacer.reset_live(marked);
            let plan = pacer.commit(live, sweep_done, memory);
            prop_assert!(is_ordered(plan, marked), "{plan:?}");
            if plan.goal == marked {
                prop_assert_eq!(plan.trigger, marked);
            }
            if !plain {
                prop_assert!(plan.ceiling <= goal_by_limit(marked, knobs.limit, memory).goal);
            }
        }
    }

    #[test]
    fn a_trigger_lies_between_live_and_goal(
        live in bytes(), goal in bytes(), a in bytes(), b in bytes(), earliest in bytes(), deepest in bytes(),
    ) {
        let runway = Runway { peak: a.max(b), sustained: a.min(b) };
        let t = trigger(live, goal, runway, earliest, deepest);
        prop_assert!(t <= goal && (t >= live || t == goal));
        // A longer runway never begins a cycle later; nor does the permission to begin early.
        let longer = Runway { peak: u64::MAX, sustained: a.max(b) };
        prop_assert!(trigger(live, goal, longer, earliest, deepest) <= t);
        prop_assert!(t <= trigger(live, goal, runway, earliest, 0));
    }

    #[test]
    fn more_gogc_is_more_room_and_less_limit_is_less(
        live in bytes(), roots in bytes(), a in any::<u32>(), b in any::<u32>(),
        low in bytes(), high in bytes(), memory in memory(),
    ) {
        let (few, many) = (a.min(b), a.max(b));
        prop_assert!(live <= goal_by_growth(live, roots, Some(few)));
        prop_assert!(goal_by_growth(live, roots, Some(few)) <= goal_by_growth(live, roots, Some(many)));
        prop_assert!(goal_by_growth(live, roots, Some(many)) <= goal_by_growth(live, roots, None));
        let (low, high) = (low.min(high), low.max(high));
        let (low, high) = (goal_by_limit(live, low, memory), goal_by_limit(live, high, memory));
        prop_assert!(low.goal <= high.goal && low.most <= high.most);
        prop_assert!(live <= low.goal && low.goal <= low.most);
    }

    #[test]
    fn the_plan_is_monotonic_in_the_knobs(
        marked in bytes(), limit in bytes(), gogc in 0..10_000_u32, memory in memory(),
    ) {
        let goal = |gogc, limit| {
            let mut pacer = Pacer::new(Knobs { gogc, limit, ..Knobs::new(8) });
            pacer.reset_live(marked);
            pacer.commit(marked, true, memory).goal
        };
        prop_assert!(goal(Some(gogc), limit) <= goal(Some(gogc + 1), limit));
        prop_assert!(goal(Some(gogc), limit) <= goal(None, limit));
        prop_assert!(goal(Some(gogc), limit) <= goal(Some(gogc), limit.saturating_add(1)));
    }

    #[test]
    fn workers_take_a_quarter(processors in any::<u32>()) {
        let workers = Workers::split(processors);
        let share = workers.share(processors);
        if workers.fractional > 0.0 {
            prop_assert!((share - BACKGROUND_SHARE).abs() < 1e-9);
        }
        prop_assert!((share / BACKGROUND_SHARE - 1.0).abs() <= 0.3);
        prop_assert!(workers.dedicated <= processors.max(1));
    }

    #[test]
    fn an_assist_pays_its_debt(work in bytes(), room in bytes(), debt in bytes()) {
        let rates = AssistRates::new(work, room);
        prop_assert!(is_sound(rates));
        let assist = rates.assist(debt);
        prop_assert!(assist.pays >= debt && assist.work >= 64 << 10);
        prop_assert!(rates.paid_by(assist.work) > 0);
    }

    #[test]
    fn a_sweep_that_is_done_in_time_is_never_due(
        live in bytes(), trigger in bytes(), pages in 0..1_u64 << 40, swept in 0..1_u64 << 40, grown in bytes(),
    ) {
        let pace = SweepPace::new(live, trigger, pages, swept);
        prop_assert_eq!(pace.pages_due(live, swept), 0);
        prop_assert_eq!(pace.pages_due(live, u64::MAX), 0);
        let later = live.saturating_add(grown);
        prop_assert!(pace.pages_due(later, swept) <= pace.pages_due(u64::MAX, swept));
        // At the trigger all of it is due, except for a page in a million that a float rounds away.
        if trigger.saturating_sub(live) > 2 << 20 && swept < pages {
            let left = pages - swept;
            prop_assert!(pace.pages_due(trigger, swept) >= left - left / 1_000_000 - 1);
        }
    }

    #[test]
    fn the_bucket_never_overflows(
        processors in any::<u32>(), steps in proptest::collection::vec((0..6_u8, bytes()), 1..40),
    ) {
        let mut limiter = Limiter::new(0, processors);
        let mut marking = false;
        for (step, n) in steps {
            match step {
                0 => limiter.update(n),
                1 => limiter.add_assist(n),
                2 => limiter.add_idle(n),
                3 => {
                    marking = !marking;
                    limiter.begin_stop(marking, n);
                }
                4 => limiter.end_stop(n),
                _ => limiter.resize(n, n as u32),
            }
            prop_assert!(limiter.fill() <= limiter.capacity());
            prop_assert!(!limiter.is_limiting() || limiter.fill() == limiter.capacity());
        }
    }

    #[test]
    fn scavenging_takes_any_figures(
        figures in (bytes(), bytes(), bytes(), bytes(), bytes(), bytes(), bytes()), growth in bytes(),
        batches in proptest::collection::vec((bytes(), bytes(), any::<u32>()), 1..20),
    ) {
        let (heap_goal, last_heap_goal, last_in_use, retained, mapped, limit, os_page) = figures;
        let input = ScavengeInput { heap_goal, last_heap_goal, last_in_use, retained, mapped, limit, os_page };
        let goals = RetainGoals::new(&input);
        prop_assert!(goals.before_growth(growth, retained) <= growth);
        let mut pace = ScavengePace::default();
        for (worked, slept, processors) in batches {
            // The sleep is between a thousandth and a thousand times the time worked.
            prop_assert!(pace.sleep_ns(worked) >= worked / 1001);
            pace.slept(worked, slept, processors);
        }
    }
}
