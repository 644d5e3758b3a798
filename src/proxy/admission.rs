//! Which request begins next where more arrive than a worker can serve: what was begun is finished first.
//!
//! A worker that took every request as it arrives would, with thousands of clients, open an upstream connection for
//! each of them before it looks at the first response. Memory, caches and the application's accept queue would pay for
//! it, and no request would be done sooner. So once [`PERMITS`] requests wait for their responses, the next ones stay
//! unread and queue in order of arrival, until fewer wait or the worker has nothing else to do. An application that
//! takes its time leaves the worker idle, and so gets every request at once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// How many requests of a worker may wait for their responses before others have to queue.
const PERMITS: usize = 64;

/// The queue of one worker.
#[derive(Default)]
pub struct AdmissionQueue {
    permits_out: Cell<usize>,
    /// How many permits were ever given back.
    permits_returned: Cell<u64>,
    waiting: RefCell<VecDeque<Waker>>,
    /// The next place to hand out.
    next: Cell<u64>,
    /// Places below this number are admitted.
    admitted: Cell<u64>,
    /// The task of [`AdmissionQueue::admit_when_idle`], while nobody waits.
    idle_task: RefCell<Option<Waker>>,
}

/// A request's place in the queue, once it has one.
#[derive(Default)]
pub struct QueuePlace(Option<u64>);

/// Lets a request begin. It counts as waiting for its response until this is dropped.
pub struct Permit(Rc<AdmissionQueue>);

impl Drop for Permit {
    fn drop(&mut self) {
        let Permit(queue) = self;
        queue.permits_out.set(queue.permits_out.get() - 1);
        queue.permits_returned.set(queue.permits_returned.get() + 1);
        if queue.permits_out.get() < PERMITS {
            queue.admit(1);
        }
    }
}

impl AdmissionQueue {
    /// Ready with a permit for a request that has arrived. `place` is its own, empty at first; the task that polls is
    /// woken when the queue has come to it.
    pub fn poll_permit(self: &Rc<Self>, place: &mut QueuePlace, cx: &mut Context<'_>) -> Poll<Permit> {
        let QueuePlace(number) = place;
        match *number {
            None if self.permits_out.get() < PERMITS && self.waiting.borrow().is_empty() => {}
            Some(number) if number < self.admitted.get() => *place = QueuePlace(None),
            Some(_) => return Poll::Pending,
            None => {
                *number = Some(self.next.get());
                self.next.set(self.next.get() + 1);
                self.waiting.borrow_mut().push_back(cx.waker().clone());
                if let Some(task) = self.idle_task.take() {
                    task.wake();
                }
                return Poll::Pending;
            }
        }
        self.permits_out.set(self.permits_out.get() + 1);
        Poll::Ready(Permit(Rc::clone(self)))
    }

    /// Admits the first `many` that wait. A request whose client has left meanwhile still uses up its place, so the
    /// numbers stay in step with the queue.
    fn admit(&self, many: usize) {
        for _ in 0..many {
            let Some(first) = self.waiting.borrow_mut().pop_front() else { return };
            self.admitted.set(self.admitted.get() + 1);
            first.wake();
        }
    }

    /// Admits requests whenever the worker is idle, which shows in no permit having come back while everything else
    /// that was due had its turn. Runs for as long as the worker does.
    pub async fn admit_when_idle(self: Rc<Self>) {
        loop {
            poll_fn(|cx| {
                if !self.waiting.borrow().is_empty() {
                    return Poll::Ready(());
                }
                *self.idle_task.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
            let returned = self.permits_returned.get();
            // The runtime asks its sockets for news before it comes back here, and runs whom they wake.
            tokio::task::yield_now().await;
            if self.permits_returned.get() == returned {
                self.admit(PERMITS);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use crate::proxy::admission::*;

    async fn permit(queue: &Rc<AdmissionQueue>) -> Permit {
        let mut place = QueuePlace::default();
        poll_fn(|cx| queue.poll_permit(&mut place, cx)).await
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
            let queue = Rc::new(AdmissionQueue::default());
            let mut permits = Vec::new();
            for _ in 0..PERMITS {
                permits.push(permit(&queue).await);
            }
            let begun = Rc::new(RefCell::new(Vec::new()));
            for number in 0..3 {
                let (queue, begun) = (Rc::clone(&queue), Rc::clone(&begun));
                spawn_local(async move {
                    let permit = permit(&queue).await;
                    begun.borrow_mut().push(number);
                    std::mem::forget(permit); // it waits for its response for ever
                });
            }
            settle().await;
            assert!(begun.borrow().is_empty(), "nobody has ended");
            for ended in 1..=3 {
                drop(permits.pop());
                settle().await;
                assert_eq!(*begun.borrow(), Vec::from_iter(0..ended));
            }
        });
    }

    #[test]
    fn an_application_that_takes_its_time_gets_everything_at_once() {
        on_a_worker(async {
            let queue = Rc::new(AdmissionQueue::default());
            spawn_local(Rc::clone(&queue).admit_when_idle());
            let begun = Rc::new(Cell::new(0));
            for _ in 0..1_000 {
                let (queue, begun) = (Rc::clone(&queue), Rc::clone(&begun));
                spawn_local(async move {
                    let _permit = permit(&queue).await;
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
            let queue = Rc::new(AdmissionQueue::default());
            let mut permits = Vec::new();
            for _ in 0..PERMITS {
                permits.push(permit(&queue).await);
            }
            let task = || {
                let queue = Rc::clone(&queue);
                spawn_local(async move { drop(permit(&queue).await) })
            };
            let (leaves, stays) = (task(), task());
            settle().await;
            leaves.abort();
            spawn_local(Rc::clone(&queue).admit_when_idle());
            stays.await.unwrap();
        });
    }
}
