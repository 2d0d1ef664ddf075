// What a scheduler costs: starting goroutines, handing values from one to another, taking turns,
// and the memory and the latency that waiting and busy ones cost. The same programs as in
// src/programs/sched.rs.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

func expect(what string, is, expected int) {
	if is != expected {
		fmt.Fprintf(os.Stderr, "%s: %d, not %d\n", what, is, expected)
		os.Exit(1)
	}
}

func each(start time.Time, count int) float64 {
	return float64(time.Since(start)) / float64(count)
}

func sumBelow(count int) int {
	return count * (count - 1) / 2
}

// task is a goroutine with a result, as a join handle has one.
type task struct {
	done   chan struct{}
	result int
}

func spawn(body func() int) *task {
	t := &task{done: make(chan struct{})}
	go func() {
		t.result = body()
		close(t.done)
	}()
	return t
}

func (t *task) join() int {
	<-t.done
	return t.result
}

// spawnAll starts all, then waits for all: the results are in a slice, as a Go program has them.
func spawnAll(count int) {
	start := time.Now()
	results := make([]int, count)
	var all sync.WaitGroup
	all.Add(count)
	for number := range count {
		go func() {
			results[number] = number
			all.Done()
		}()
	}
	all.Wait()
	sum := 0
	for _, result := range results {
		sum += result
	}
	value := each(start, count)
	expect("the sum of what they return", sum, sumBelow(count))
	report(value, "ns", "")
}

// spawnEach starts and joins, one after another.
func spawnEach(count int) {
	start := time.Now()
	sum := 0
	for number := range count {
		sum += spawn(func() int { return number }).join()
	}
	value := each(start, count)
	expect("the sum of what they return", sum, sumBelow(count))
	report(value, "ns", "")
}

// pingPong is two goroutines and two channels: each of count is there and back.
func pingPong(room, count int) {
	ping, pong := make(chan int, room), make(chan int, room)
	go func() {
		for number := range ping {
			pong <- number + 1
		}
	}()
	start := time.Now()
	number := 0
	for range count {
		ping <- number
		number = <-pong
	}
	value := each(start, count)
	close(ping)
	expect("rounds", number, count)
	report(value, "ns", "")
}

// ring lets a number go round; each of count is a step from one goroutine to the next.
func ring(room, tasks, count int) {
	first := make(chan int, room)
	before := first
	for range tasks - 1 {
		to := make(chan int, room)
		go func(mine chan int) {
			for number := range mine {
				to <- number + 1
			}
			close(to)
		}(before)
		before = to
	}
	rounds := count / tasks
	start := time.Now()
	number := 0
	for range rounds {
		first <- number + 1
		number = <-before
	}
	value := each(start, rounds*tasks)
	close(first)
	expect("steps", number, rounds*tasks)
	report(value, "ns", "")
}

// oneToOne is one goroutine that sends and one that receives.
func oneToOne(room, count int) {
	channel := make(chan int, room)
	start := time.Now()
	go func() {
		for number := range count {
			channel <- number
		}
		close(channel)
	}()
	sum := 0
	for number := range channel {
		sum += number
	}
	value := each(start, count)
	expect("the sum of what came", sum, sumBelow(count))
	report(value, "ns", "")
}

// skynetNode starts ten, down to so many leaves, and adds up what they send.
func skynetNode(to chan<- int, number, leaves int) {
	sum := number
	if leaves > 1 {
		from := make(chan int, 10)
		for i := range 10 {
			go skynetNode(from, number+i*(leaves/10), leaves/10)
		}
		sum = 0
		for range 10 {
			sum += <-from
		}
	}
	to <- sum
}

func skynet(leaves int) {
	to := make(chan int, 1)
	start := time.Now()
	go skynetNode(to, 0, leaves)
	sum := <-to
	value := each(start, 1_000_000)
	expect("the sum of the leaves", sum, sumBelow(leaves))
	report(value, "ms", "")
}

var sink atomic.Int64

// takeTurns lets so many goroutines yield, count times in all.
func takeTurns(tasks, count int) {
	turns := count / tasks
	start := time.Now()
	results := make([]int, tasks)
	var all sync.WaitGroup
	all.Add(tasks)
	for i := range tasks {
		go func() {
			done := 0
			for range turns {
				runtime.Gosched()
				done++
			}
			results[i] = done
			all.Done()
		}()
	}
	all.Wait()
	sum := 0
	for _, result := range results {
		sum += result
	}
	value := each(start, turns*tasks)
	expect("turns", sum, turns*tasks)
	report(value, "ns", "")
}

// waiting is goroutines that wait for a channel to be closed.
type waiting struct {
	gate  chan struct{}
	ended atomic.Int64
	tasks int
}

// startWaiting comes back when each of them waits.
func startWaiting(tasks int) *waiting {
	w := &waiting{gate: make(chan struct{}), tasks: tasks}
	var begun atomic.Int64
	for range tasks {
		go func() {
			begun.Add(1)
			<-w.gate
			w.ended.Add(1)
		}()
	}
	until(&begun, tasks)
	return w
}

func (w *waiting) end() {
	close(w.gate)
	until(&w.ended, w.tasks)
}

// until waits for a count to be reached, and a little longer.
func until(count *atomic.Int64, wanted int) {
	for count.Load() < int64(wanted) {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
}

func millis(d time.Duration) float64 {
	return float64(d) / 1e6
}

// idle is the resident memory for each goroutine that waits.
func idle(tasks int) {
	before := residentKiB()
	start := time.Now()
	w := startWaiting(tasks)
	after, begun := residentKiB(), time.Since(start)
	w.end()
	report(float64(after-before)*1024/float64(tasks), "B",
		fmt.Sprintf("start=%.3fms all=%.3fms", millis(begun), millis(time.Since(start))))
}

// stops is the longest stop of whole collections while goroutines wait. What Go tells is one
// figure a cycle, the sum of its stops.
func stops(tasks, rounds int) {
	debug.SetGCPercent(-1)
	w := startWaiting(tasks)
	start := time.Now()
	for range rounds {
		runtime.GC()
	}
	whole := time.Since(start) / time.Duration(rounds)
	var after debug.GCStats
	debug.ReadGCStats(&after)
	w.end()
	pauses := after.Pause[:min(rounds, len(after.Pause))]
	longest := time.Duration(0)
	for _, pause := range pauses {
		longest = max(longest, pause)
	}
	report(float64(longest)/1e3, "us", fmt.Sprintf("p50=%.3fus collection=%.3fms",
		float64(median(pauses))/1e3, millis(whole)))
}

// hog is how late a timer of a millisecond is at worst while goroutines compute without a pause.
func hog(hogs, length int) {
	total := time.Duration(length) * time.Millisecond
	var stop atomic.Bool
	var all sync.WaitGroup
	all.Add(hogs)
	begin := time.Now()
	for range hogs {
		go func() {
			defer all.Done()
			work := int64(1)
			for !stop.Load() && time.Since(begin) < total {
				for range 1000 {
					work *= -0x61c8864680b583eb
				}
			}
			sink.Add(work)
		}()
	}
	var late times
	for start := time.Now(); time.Since(start) < total; {
		before := time.Now()
		time.Sleep(time.Millisecond)
		late.record(time.Since(before) - time.Millisecond)
	}
	stop.Store(true)
	all.Wait()
	report(float64(late.max)/1e3, "us", fmt.Sprintf("p50=%.3fus p99=%.3fus",
		late.quantile(0.5)/1e3, late.quantile(0.99)/1e3))
}

func main() {
	const text = "sched CASE WORKERS COUNT.."
	if len(os.Args) < 4 {
		usage(text)
	}
	runtime.GOMAXPROCS(number(os.Args[2]))
	counts := make([]int, 0, 3)
	for _, arg := range os.Args[3:] {
		counts = append(counts, number(arg))
	}
	switch name := os.Args[1]; {
	case name == "spawn" && len(counts) == 1:
		spawnAll(counts[0])
	case name == "spawn-each" && len(counts) == 1:
		spawnEach(counts[0])
	case name == "pingpong" && len(counts) == 2:
		pingPong(counts[0], counts[1])
	case name == "ring" && len(counts) == 3:
		ring(counts[0], counts[1], counts[2])
	case name == "chan" && len(counts) == 2:
		oneToOne(counts[0], counts[1])
	case name == "skynet" && len(counts) == 1:
		skynet(counts[0])
	case name == "yield" && len(counts) == 2:
		takeTurns(counts[0], counts[1])
	case name == "idle" && len(counts) == 1:
		idle(counts[0])
	case name == "stops" && len(counts) == 2:
		stops(counts[0], counts[1])
	case name == "hog" && len(counts) == 2:
		hog(counts[0], counts[1])
	default:
		usage(text)
	}
}
