/* The kernel asks a device: the real-time clock, through its driver. */
#include <sys/ioctl.h>

#include "work.h"

/* As in <linux/rtc.h>, which musl does not have. */
#define RTC_RD_TIME _IOR('p', 0x09, struct rtc_time)
struct rtc_time {
    int tm_sec, tm_min, tm_hour, tm_mday, tm_mon, tm_year, tm_wday, tm_yday, tm_isdst;
};

static struct rtc_time now;

int main(void)
{
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("seconds:i32", &now.tm_sec);
    virtuoso_output("minutes:i32", &now.tm_min);
    virtuoso_begin("rtc");
    int fd = open("/dev/rtc0", O_RDONLY);
    rc = fd < 0 ? -errno : 0;
    if (fd >= 0 && ioctl(fd, RTC_RD_TIME, &now) != 0)
        rc = -errno;
    virtuoso_end();

    printf("rc %d minutes %d seconds %d\n", rc, now.tm_min, now.tm_sec);
    return 0;
}
