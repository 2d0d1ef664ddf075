// Short-lived objects: nanoseconds per allocation.
//
// An object escapes because its address is stored once, in a variable of its goroutine's own
// cache line; nothing else ever reads it.
package main

import (
	"os"
	"strconv"
	"sync"
	"time"
	"unsafe"
)

const (
	batch         = 1000
	batchesAClock = 64
)

type (
	n16  struct{ a [2]uint64 }
	n32  struct{ a [4]uint64 }
	n64  struct{ a [8]uint64 }
	n256 struct{ a [32]uint64 }
	s16  struct {
		next *s16
		a    [1]uint64
	}
	s32 struct {
		next *s32
		a    [3]uint64
	}
	s64 struct {
		next *s64
		a    [7]uint64
	}
	s256 struct {
		next *s256
		a    [31]uint64
	}
)

type sink struct {
	last unsafe.Pointer
	_    [120]byte // two cache lines: neighbours are fetched in pairs
}

var sinks [64]sink

// One loop a type: a generic one would find the type to allocate through a dictionary.

func allocN16(to *unsafe.Pointer) {
	for i := range uint64(batch) {
		p := new(n16)
		p.a[0] = i
		*to = unsafe.Pointer(p)
	}
}

func allocN32(to *unsafe.Pointer) {
	for i := range uint64(batch) {
		p := new(n32)
		p.a[0] = i
		*to = unsafe.Pointer(p)
	}
}

func allocN64(to *unsafe.Pointer) {
	for i := range uint64(batch) {
		p := new(n64)
		p.a[0] = i
		*to = unsafe.Pointer(p)
	}
}

func allocN256(to *unsafe.Pointer) {
	for i := range uint64(batch) {
		p := new(n256)
		p.a[0] = i
		*to = unsafe.Pointer(p)
	}
}

func allocS16(to *unsafe.Pointer) {
	for i := range uint64(batch) {
		p := new(s16)
		p.a[0] = i
		*to = unsafe.Pointer(p)
	}
}

func allocS32(to *unsafe.Pointer) {
	for i := range uint64(batch) {
		p := new(s32)
		p.a[0] = i
		*to = unsafe.Pointer(p)
	}
}

func allocS64(to *unsafe.Pointer) {
	for i := range uint64(batch) {
		p := new(s64)
		p.a[0] = i
		*to = unsafe.Pointer(p)
	}
}

func allocS256(to *unsafe.Pointer) {
	for i := range uint64(batch) {
		p := new(s256)
		p.a[0] = i
		*to = unsafe.Pointer(p)
	}
}

func main() {
	if len(os.Args) != 5 {
		usage("alloc 16|32|64|256 noscan|scan THREADS SECONDS")
	}
	loops := map[string]func(*unsafe.Pointer){
		"16 noscan": allocN16, "32 noscan": allocN32, "64 noscan": allocN64, "256 noscan": allocN256,
		"16 scan": allocS16, "32 scan": allocS32, "64 scan": allocS64, "256 scan": allocS256,
	}
	loop := loops[os.Args[1]+" "+os.Args[2]]
	threads := number(os.Args[3])
	seconds, err := strconv.ParseFloat(os.Args[4], 64)
	if loop == nil || err != nil || threads > len(sinks) {
		usage("alloc 16|32|64|256 noscan|scan THREADS SECONDS")
	}
	limit := time.Duration(seconds * float64(time.Second))

	var mu sync.Mutex
	var total time.Duration
	var count uint64
	var done sync.WaitGroup
	for t := range threads {
		done.Go(func() {
			n := uint64(0)
			start := time.Now()
			for time.Since(start) < limit {
				for range batchesAClock {
					loop(&sinks[t].last)
				}
				n += batch * batchesAClock
			}
			took := time.Since(start)
			mu.Lock()
			defer mu.Unlock()
			total += took
			count += n
		})
	}
	done.Wait()
	report(float64(total.Nanoseconds())/float64(count), "ns", "")
}
