// What every Go program here shares: the line it prints, its arguments, and the random numbers
// that make its graphs equal to those of the Rust programs.
package main

import (
	"bufio"
	"fmt"
	"math/bits"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
)

// report prints "value unit peak-RSS-in-KiB notes", the line that run.sh reads.
func report(value float64, unit string, notes string) {
	fmt.Printf("%.3f %s %d %s\n", value, unit, peakKiB(), notes)
}

// peakKiB is the high-water mark of this process's own resident memory. (getrusage would also
// count what the parent had resident before exec.)
func peakKiB() int64 {
	return statusKiB("VmHWM:")
}

// residentKiB is what this process has resident now.
func residentKiB() int64 {
	return statusKiB("VmRSS:")
}

func statusKiB(name string) int64 {
	file, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if rest, found := strings.CutPrefix(lines.Text(), name); found {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib
		}
	}
	return 0
}

func usage(text string) {
	fmt.Fprintln(os.Stderr, "usage:", text)
	os.Exit(2)
}

func number(arg string) int {
	n, err := strconv.Atoi(arg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	return n
}

func median(times []time.Duration) time.Duration {
	sort.Slice(times, func(a, b int) bool { return times[a] < times[b] })
	return times[len(times)/2]
}

// rng is SplitMix64, seeded as in src/programs/mark.rs.
type rng uint64

func (r *rng) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

func (r *rng) below(n int) int {
	high, _ := bits.Mul64(r.next(), uint64(n))
	return int(high)
}

func (r *rng) permutation(n int) []uint32 {
	p := make([]uint32, n)
	for i := range p {
		p[i] = uint32(i)
	}
	for i := n - 1; i > 0; i-- {
		j := r.below(i + 1)
		p[i], p[j] = p[j], p[i]
	}
	return p
}

// times counts durations to a part in 64, as src/measure.rs does.
type times struct {
	counts [64 * 64]uint64
	max    uint64
}

func (t *times) record(took time.Duration) {
	ns := uint64(took)
	exponent := max(bits.Len64(ns), 7) - 7
	t.counts[uint64(exponent)<<6+ns>>exponent]++
	t.max = max(t.max, ns)
}

// quantile is the least bound that so large a part of the durations is not above.
func (t *times) quantile(part float64) float64 {
	total := uint64(0)
	for _, count := range t.counts {
		total += count
	}
	below := uint64(0)
	for i, count := range t.counts {
		below += count
		if float64(below) >= part*float64(total) {
			exponent := max(i>>6, 1) - 1
			return float64(((uint64(i-exponent<<6) + 1) << exponent) - 1)
		}
	}
	return float64(t.max)
}
