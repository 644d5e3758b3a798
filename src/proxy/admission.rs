//! Which request begins next where more arrive than a worker can serve: what was begun is finished first.
//!
//! A worker that took every request as it arrives would, with thousands of clients, open an upstream connection for
//! each of them before it looks at the first answer: memory, caches and the application's accept queue pay for it, and
//! no request is done sooner. So beyond [`IN_FLIGHT`] requests that wait for an answer, the next ones stay unread, in
//! order of arrival, until fewer wait or the worker has nothing else to do. An application that takes its time leaves
//! the worker idle, and so gets everything at once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Requests of a worker that may wait for their answers before others stand in line.
const IN_FLIGHT: usize = 64;

/// The line of a worker.
#[derive(Default)]
pub struct Intake {
    in_flight: Cell<usize>,
    /// Turns that have ended ever.
    ended: Cell<u64>,
    line: RefCell<VecDeque<Waker>>,
    /// The number of the next ticket.
    next: Cell<u64>,
    /// Tickets below this number may begin.
    admitted: Cell<u64>,
    usher: RefCell<Option<Waker>>,
}

/// A place in line, or none yet.
#[derive(Default)]
pub struct Ticket(Option<u64>);

/// A request that waits for its answer, until it is dropped.
pub struct Turn(Rc<Intake>);

impl Drop for Turn {
    fn drop(&mut self) {
        let Turn(intake) = self;
        intake.in_flight.set(intake.in_flight.get() - 1);
        intake.ended.set(intake.ended.get() + 1);
        if intake.in_flight.get() < IN_FLIGHT {
            intake.admit(1);
        }
    }
}

impl Intake {
    /// A turn for a request that has arrived. The task that asks is woken when it is in order.
    pub fn poll_turn(self: &Rc<Self>, ticket: &mut Ticket, cx: &mut Context<'_>) -> Poll<Turn> {
        let Ticket(number) = ticket;
        match *number {
            None if self.in_flight.get() < IN_FLIGHT && self.line.borrow().is_empty() => {}
            Some(number) if number < self.admitted.get() => *ticket = Ticket(None),
            Some(_) => return Poll::Pending,
            None => {
                *number = Some(self.next.get());
                self.next.set(self.next.get() + 1);
                self.line.borrow_mut().push_back(cx.waker().clone());
                if let Some(usher) = self.usher.take() {
                    usher.wake();
                }
                return Poll::Pending;
            }
        }
        self.in_flight.set(self.in_flight.get() + 1);
        Poll::Ready(Turn(Rc::clone(self)))
    }

    /// Lets the first `many` in. One that has left meanwhile is one fewer.
    fn admit(&self, many: usize) {
        for _ in 0..many {
            let Some(first) = self.line.borrow_mut().pop_front() else { return };
            self.admitted.set(self.admitted.get() + 1);
            first.wake();
        }
    }

    /// Lets requests in whenever no answer has begun since everything else that was to do was looked at. Never ends.
    pub async fn usher(self: Rc<Self>) {
        loop {
            poll_fn(|cx| {
                if !self.line.borrow().is_empty() {
                    return Poll::Ready(());
                }
                *self.usher.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
            let ended = self.ended.get();
            // The runtime asks its sockets for news before it comes back here, and runs whom they wake.
            tokio::task::yield_now().await;
            if self.ended.get() == ended {
                self.admit(IN_FLIGHT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use crate::proxy::admission::*;

    async fn turn(intake: &Rc<Intake>) -> Turn {
        let mut ticket = Ticket::default();
        poll_fn(|cx| intake.poll_turn(&mut ticket, cx)).await
    }

    fn on_a_worker(test: impl Future<Output = ()> + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    }

    async fn settle() {
        for _ in 0..20 {
            yield_now().await;
        }
    }

    #[test]
    fn beyond_the_first_each_waits_for_one_that_ends_in_order_of_arrival() {
        on_a_worker(async {
            let intake = Rc::new(Intake::default());
            let mut turns = Vec::new();
            for _ in 0..IN_FLIGHT {
                turns.push(turn(&intake).await);
            }
            let begun = Rc::new(RefCell::new(Vec::new()));
            for number in 0..3 {
                let (intake, begun) = (Rc::clone(&intake), Rc::clone(&begun));
                spawn_local(async move {
                    let turn = turn(&intake).await;
                    begun.borrow_mut().push(number);
                    std::mem::forget(turn); // it waits for its answer for ever
                });
            }
            settle().await;
            assert!(begun.borrow().is_empty(), "nobody has ended");
            for ended in 1..=3 {
                drop(turns.pop());
                settle().await;
                assert_eq!(*begun.borrow(), Vec::from_iter(0..ended));
            }
        });
    }

    #[test]
    fn an_application_that_takes_its_time_gets_everything_at_once() {
        on_a_worker(async {
            let intake = Rc::new(Intake::default());
            spawn_local(Rc::clone(&intake).usher());
            let begun = Rc::new(Cell::new(0));
            for _ in 0..1_000 {
                let (intake, begun) = (Rc::clone(&intake), Rc::clone(&begun));
                spawn_local(async move {
                    let _turn = turn(&intake).await;
                    begun.set(begun.get() + 1);
                    std::future::pending::<()>().await;
                });
            }
            while begun.get() < 1_000 {
                yield_now().await;
            }
        });
    }

    #[test]
    fn who_leaves_the_line_holds_nobody_up() {
        on_a_worker(async {
            let intake = Rc::new(Intake::default());
            let mut turns = Vec::new();
            for _ in 0..IN_FLIGHT {
                turns.push(turn(&intake).await);
            }
            let task = || {
                let intake = Rc::clone(&intake);
                spawn_local(async move { drop(turn(&intake).await) })
            };
            let (leaves, stays) = (task(), task());
            settle().await;
            leaves.abort();
            spawn_local(Rc::clone(&intake).usher());
            stays.await.unwrap();
        });
    }
}
