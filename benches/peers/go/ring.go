// A ring of messages at full speed: the time of each insert, which is an allocation of 1 KiB, a
// store of each word and a store into the ring. Microseconds.
package main

import (
	"fmt"
	"os"
	"time"
)

type message struct {
	number uint64
	words  [127]uint64
}

func (m *message) fill(number uint64) {
	m.number = number
	word := uint64(uint8(number)) * 0x0101010101010101
	for i := range m.words {
		m.words[i] = word
	}
}

func (m *message) isWhole(number uint64) bool {
	word := uint64(uint8(number)) * 0x0101010101010101
	for i := range m.words {
		if m.words[i] != word {
			return false
		}
	}
	return m.number == number
}

var inserts times

func main() {
	if len(os.Args) != 3 {
		usage("ring MESSAGES INSERTS")
	}
	messages, count := uint64(number(os.Args[1])), uint64(number(os.Args[2]))

	ring := make([]*message, messages)
	start := time.Now()
	before := start
	at := uint64(0)
	for n := range count {
		m := new(message)
		m.fill(n)
		ring[at] = m
		if at++; at == messages {
			at = 0
		}
		now := time.Now()
		inserts.record(now.Sub(before))
		before = now
	}
	total := time.Since(start)
	for n := count - min(count, messages); n < count; n++ {
		if !ring[n%messages].isWhole(n) {
			fmt.Fprintln(os.Stderr, "message", n, "is not what was written")
			os.Exit(1)
		}
	}
	report(inserts.quantile(0.9999)/1e3, "us", fmt.Sprintf("p50=%.3fus max=%.3fus total=%.3fms",
		inserts.quantile(0.5)/1e3, float64(inserts.max)/1e3, float64(total.Nanoseconds())/1e6))
}
