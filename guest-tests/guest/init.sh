#!/bin/busybox sh
# The guest's first process: modules, addresses, and a shell on the console that the tests drive.
# The kernel hands over, as environment: TOE_TTY (that console's name), TOE_MTU (bytes; of the card's interface) and, perhaps,
# TOE_ROUTE_MTU (bytes; of what goes by IP there).
/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t tmpfs -o size=75% tmp /tmp
ln -sf /proc/self/fd /dev/fd

while read -r module; do insmod "/modules/$module"; done < /modules/order
# Debian's kernel knows no addresses but these; a duplicate cannot be, so nothing waits for it to be found out.
ip link set lo up
for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -e /sys/class/net/eth0 ] && break
    sleep 0.2
done
if [ -e /sys/class/net/eth0 ]; then
    sysctl -qw net.ipv6.conf.eth0.accept_dad=0 net.ipv6.conf.eth0.accept_ra=0
    ip link set eth0 mtu "${TOE_MTU:-1500}"
    ip link set eth0 up
    ip address add 192.0.2.2/24 dev eth0
    ip -6 address add 2001:db8:1::2/64 dev eth0
    if [ -n "${TOE_ROUTE_MTU:-}" ]; then
        ip route change 192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.2 mtu "$TOE_ROUTE_MTU"
        ip -6 route replace 2001:db8:1::/64 dev eth0 proto kernel metric 256 mtu "$TOE_ROUTE_MTU"
    fi
fi
cd /tmp || exit

# Commands come in on the console byte for byte, and go out so.
# It stays open from here on: what arrives while nobody has it open would be lost.
exec 3<> "/dev/$TOE_TTY"
stty raw -echo <&3
while :; do
    echo TOE-GUEST-READY > "/dev/$TOE_TTY"
    # As a script: a shell whose standard input is a terminal would be an interactive one, and prompt and echo.
    setsid sh "/dev/$TOE_TTY" < /dev/null > "/dev/$TOE_TTY" 2>&1
done
