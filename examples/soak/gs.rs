//! Parties that are Gs, and the other work of a scheduler: channels, sleeps, blocking calls, Gs
//! that are aborted. One runtime follows another, each with a different width.

use std::sync::Arc;
use std::time::Duration;

use greywave::{GcChan, JoinHandle, Root, Runtime, blocking, go, sleep, timeout, with, yield_now};

use crate::common::rng::Rng;
use crate::objects::Node;
use crate::party::Party;
use crate::shared::{Kind, Shared};

type Chan = Root<GcChan<'static, Node<'static>>>;

/// Steps of a party in one turn.
const TURN: u64 = 50;

/// One runtime after another, until it is over.
pub(crate) fn run(shared: &Arc<Shared>) -> Result<(), String> {
    let mut rng = Rng::new(shared.seed, u64::MAX);
    while !shared.is_over() {
        let procs = 1 + rng.below(3);
        let runtime = Runtime::builder(&shared.heap).procs(procs);
        let runtime = runtime.build().map_err(|error| error.to_string())?;
        let round = Round {
            shared: shared.clone(),
            turns: 200 + rng.below(1_000) as u64,
        };
        let done = runtime.block_on(round.run());
        done.map_err(|deadlock| deadlock.to_string())??;
        let ended = runtime.shutdown(Duration::from_secs(30));
        ended.map_err(|error| error.to_string())?;
        shared.count(Kind::Rounds, 1);
    }
    Ok(())
}

/// What one runtime runs.
#[derive(Clone, Debug)]
struct Round {
    shared: Arc<Shared>,
    turns: u64,
}

impl Round {
    async fn run(self) -> Result<(), String> {
        let parties: Vec<_> = (0..4).map(|_| go(self.clone().work())).collect();
        let channel = go(self.clone().pass_items());
        let short = go(self.clone().spawn_short_ones());
        for party in parties {
            joined(party).await?;
        }
        joined(channel).await?;
        joined(short).await
    }

    /// A party, some steps a turn.
    async fn work(self) -> Result<(), String> {
        let mut party = with(|m| Party::new(m, &self.shared));
        for _ in 0..self.turns {
            if self.shared.is_over() {
                break;
            }
            with(|m| (0..TURN).try_for_each(|_| party.step(m)))?;
            self.shared.count(Kind::Gs, TURN);
            match party.rng.below(40) {
                0 => sleep(Duration::from_micros(party.rng.below(3_000) as u64)).await,
                1 => blocking(|| std::thread::sleep(Duration::from_micros(300))).await,
                _ => yield_now().await,
            }
        }
        with(|m| party.check_all(m))
    }

    /// Three send and two receive nodes, each once.
    async fn pass_items(self) -> Result<(), String> {
        let chan: Chan = with(|m| m.root(m.alloc(GcChan::<Node<'_>>::new(16))));
        let senders: Vec<_> = (0..3)
            .map(|_| go(self.clone().send_items(chan.clone())))
            .collect();
        let receivers: Vec<_> = (0..2)
            .map(|_| go(self.clone().receive_items(chan.clone())))
            .collect();
        let mut sum = 0_u64;
        for sender in senders {
            sum = sum.wrapping_add(joined(sender).await?);
        }
        chan.close();
        for receiver in receivers {
            sum = sum.wrapping_sub(joined(receiver).await?);
        }
        if sum != 0 {
            return Err("what came out of a channel is not what went in".to_owned());
        }
        Ok(())
    }

    async fn send_items(self, chan: Chan) -> Result<u64, String> {
        let mut rng = Rng::new(self.shared.seed, self.shared.new_party());
        let mut sum = 0_u64;
        for _ in 0..20 * self.turns {
            if self.shared.is_over() {
                break;
            }
            let id = self.shared.new_id();
            let sent = chan.send(|m| Node::alloc(m, id, &mut rng)).await;
            sent.map_err(|_| "a channel was closed too early".to_owned())?;
            sum = sum.wrapping_add(id);
        }
        Ok(sum)
    }

    async fn receive_items(self, chan: Chan) -> Result<u64, String> {
        let mut sum = 0_u64;
        while let Some(id) = chan.recv(|_, node| node.checked()).await {
            sum = sum.wrapping_add(id?);
            self.shared.count(Kind::Channels, 1);
        }
        Ok(sum)
    }

    /// Gs of short life; of some the wait is given up, and they are aborted.
    async fn spawn_short_ones(self) -> Result<(), String> {
        let mut rng = Rng::new(self.shared.seed, self.shared.new_party());
        for _ in 0..self.turns {
            if self.shared.is_over() {
                break;
            }
            let id = self.shared.new_id();
            let root = with(|m| m.root(Node::alloc(m, id, &mut rng)));
            let waits = rng.below(4) == 0;
            let short = go(async move {
                if waits {
                    sleep(Duration::from_secs(3600)).await;
                }
                yield_now().await;
                with(|m| root.get(m).checked())
            });
            if waits {
                yield_now().await;
                short.abort();
            }
            match timeout(Duration::from_secs(60), short).await {
                Ok(Ok(seen)) if seen.as_ref() == Ok(&id) => {}
                Ok(Err(_)) if waits => {}
                other => return Err(format!("a G with node {id} ended with {other:?}")),
            }
        }
        Ok(())
    }
}

async fn joined<T>(g: JoinHandle<Result<T, String>>) -> Result<T, String> {
    g.await.map_err(|error| error.to_string())?
}
